package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4/middleware"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/instances"
	"github.com/sealstone/sealstone/internal/store"
)

// Config is what a Server is made of. Store and Source are needed.
type Config struct {
	Store  *store.Store
	Source *bundler.Source
	Branch string // as in the source; goes into each release's ref

	Poll        time.Duration    // between fetches, ± 20 %; 0 is 10 s
	OpenReads   bool             // reads need no token
	Public      bool             // others than this machine can connect: without clients.yaml reads need a token that nobody has
	Instances   *instances.Table // what instances report; nil keeps it in memory
	PendingFile string           // keeps unrecorded safe-mode statements over a restart; "" keeps them in memory
	CORSOrigins []string         // origins that browsers may call OFREP from
	OFREPRate   float64          // OFREP evaluations a second that each client may ask for; 0 is no limit
	HookSecret  []byte           // nil: POST /hooks/git is 404
	Version     string
	Logger      *slog.Logger // nil: slog.Default
}

// Server is the HTTP handler and the loops behind it. Make one with New, run
// the loops with Run.
type Server struct {
	cfg     Config
	log     *slog.Logger
	store   *store.Store
	builder *bundler.Builder
	over    overLimit // under reconciling
	repo    *bundler.Repo
	started time.Time

	reconciling sync.Mutex // one Reconcile at a time

	access   access   // who may read what
	programs programs // compiled flags by bundle
	hub      hub      // who watches
	streams  streams  // addresses of OFREP's event streams
	memo     tags     // entity tags of OFREP's answers
	sets     sync.Map // operators sets, by version of the trust file and entry
	limiter  *middleware.RateLimiterMemoryStore
	pending  pending // statements the log doesn't have yet
	live     *instances.Table
	walks    walks // which change touched which flag
	source   sourceState
	whole    wholeness // are the objects of what is in effect
	hooks    hooks
	trustErr atomic.Pointer[string] // see TrustFile
	trouble  atomic.Pointer[string] // of storage, that was logged; "" is none
	metrics  *metrics
	handler  http.Handler

	kick chan struct{} // asks the reconcile loop for a round now
}

// New makes a server from opened parts. It reads what the last run accepted
// from the store and the local repository; it does not touch the network, so a
// restart serves what was live while Git is down.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Source == nil {
		return nil, errors.New("server: store and source are needed")
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 10 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Server{cfg: cfg, log: cfg.Logger, store: cfg.Store, started: time.Now(), kick: make(chan struct{}, 1)}
	s.repo = bundler.NewRepo(cfg.Source.Git())
	s.builder = bundler.New(s.repo)
	s.access.open, s.access.public = cfg.OpenReads, cfg.Public
	s.access.set(nil, false)
	s.hub.init()
	s.streams.init()
	s.limiter = newLimiter(cfg.OFREPRate)
	s.programs.init(s.store, s.lost)
	if s.live = cfg.Instances; s.live == nil {
		s.live, _ = instances.Open("", time.Now()) // in memory, nothing can fail
	}
	if err := s.restore(); err != nil {
		return nil, err
	}
	if err := s.rederive(); err != nil { // only older sets lack their rows: reads go on
		s.log.Error("what a recovery left out is not made again; it is tried at the next start", slog.Any("error", err))
	}
	s.whole.found.Store(&wholes{}) // the first round looks
	s.whole.turn, s.pending.settling, s.pending.keeping = newTurn(), newTurn(), newTurn()
	s.restorePending()
	s.metrics = newMetrics(s)
	s.handler = s.routes()
	return s, nil
}

// ServeHTTP answers every route.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Run runs the loops until ctx ends and waits for them.
func (s *Server) Run(ctx context.Context) {
	var wg sync.WaitGroup
	if err := s.store.Writes(); err != nil {
		s.log.Error("the ledger takes no changes", slog.Any("error", err))
	}
	for _, loop := range []func(context.Context){s.reconcileLoop, s.publishLoop, s.expiryLoop, s.pendingLoop, s.leaseLoop, s.scrubLoop} {
		wg.Go(func() { loop(ctx) })
	}
	wg.Wait()
	s.hub.close()
}

// TrustFile hears why the trust file in the data directory is not in use, for
// status; nil: it is.
func (s *Server) TrustFile(err error) {
	if err == nil {
		s.trustErr.Store(nil)
		return
	}
	why := err.Error()
	s.trustErr.Store(&why)
}

// Sync asks the reconcile loop for a round now.
func (s *Server) Sync() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// publishLoop tells watchers whenever the store publishes.
func (s *Server) publishLoop(ctx context.Context) {
	last := s.store.Snapshot()
	s.programs.prepare(last.State)
	for {
		changed := s.store.Changed()
		now := s.store.Snapshot()
		if now != last {
			s.programs.prepare(now.State)
			s.hub.publish(last.State, now.State, now.Tree.Size)
			last = now
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// tellTrouble logs why storage takes nothing, the same once: answers don't have
// the cause, which may name paths.
func (s *Server) tellTrouble() {
	why := ""
	if err := s.store.Writes(); api.CodeOf(err) == api.CodeStorage {
		why = causeOf(err)
	}
	was := s.trouble.Swap(&why)
	switch {
	case was != nil && *was == why:
	case why != "":
		s.log.Error("the ledger can't store changes; it is tried again", slog.String("cause", why))
	case was != nil:
		s.log.Info("the ledger stores changes again")
	}
}

// causeOf is what lies under an error that has a text for answers; "" for none.
func causeOf(err error) string {
	if e, ok := errors.AsType[*api.Error](err); ok && e.Err != nil {
		return e.Err.Error()
	}
	return ""
}

func (s *Server) scrubLoop(ctx context.Context) {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.store.Scrub(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("scrub found damage; the ledger takes no more changes", slog.Any("error", err))
			}
			if now := strings.Join(s.store.Health(), "; "); now != said {
				said = now
				s.log.Warn("the store owes work", slog.String("health", now))
			}
		}
	}
}
