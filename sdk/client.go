package sdk

import (
	"context"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/ledger"
)

// Client holds the verified configuration of one target and keeps it current.
// Its methods are safe for concurrent use; reads never block and never fail.
type Client struct {
	cfg       Config
	target    api.Target
	log       *slog.Logger
	remote    *remote
	cache     *cache // nil without
	provider  *Provider
	callbacks callbacks

	view atomic.Pointer[view] // what readers see; nil only inside Open

	wake       chan struct{} // a server announced something
	reportNow  chan struct{} // something worth a report happened
	tried      chan struct{} // closed after the first round
	ready      chan struct{} // closed when there is a view
	firstRound sync.Once
	stop       context.CancelFunc
	wg         sync.WaitGroup
	closed     sync.Once

	// mu guards what is below. It is held to compute and to swap, never across
	// network or disk.
	mu          sync.Mutex
	trust       *ledger.Trust
	given       string        // origin of the trust file that was given; "" without
	former      *ledger.Trust // at the start: the newest of the log before, where trust moved to another
	firstUse    bool
	known       *ledger.Known    // never goes back
	proven      *ledger.Proven   // the newest head that was believed
	checkpoint  string           // its checkpoint, signed
	fresh       bool             // it came from a server, in this process's life
	news        time.Time        // until when heads showed that the log has nothing newer, by this machine's clock
	evidence    *ledger.Evidence // the newest that stands alone
	evidenceSet api.Digest       // the set that it proves for this target
	staged      *staged
	memory      map[api.Digest][]byte // objects of the staged set, without a cache
	held        map[api.Digest]*held
	seen        map[api.Digest]verdict // statements judged before
	saveHeld    bool
	trustAsked  time.Time // when a newer trust file was last looked for without need
	docs        []*docEntry
	refusals    []Refusal
	state       api.State
	why         string
	lastErr     error          // of the last round
	uncovered   bool           // every activation was withdrawn
	behind      bool           // a newer set is in effect than the one that is staged
	lacking     api.Mode       // in force, but not in the set
	before      []ledger.Chain // of a log that was succeeded: in effect until its successor has something; nil else
	ended       string         // which safe mode ended with it, for people
	origin      string         // where the first view came from, for people
	cacheNote   string
}

// Open starts a client and returns when it has something verified to serve:
// from a server within StartWait, else from the cache, else from the fallback,
// else whenever a server answers. ctx bounds only that wait, and without a
// deadline it may never end, for example for a scope that isn't activated; the
// log says what is missing. When ctx ends first, Open returns its error joined with the reason that the servers gave. Close
// ends the client.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	target, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	c := newClient(cfg.withDefaults(), target)
	if cfg.Cache != "" {
		if c.cache, err = openCache(cfg.Cache, c.log); err != nil {
			c.cacheNote = err.Error()
			c.log.Warn("sealstone: running without a cache", slog.Any("error", err))
		}
	}
	if err := c.startTrust(); err != nil {
		c.cache.close()
		return nil, err
	}
	c.loadCache(ctx)
	c.run()
	if err := c.start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func newClient(cfg Config, target api.Target) *Client {
	c := &Client{
		cfg: cfg, target: target, log: cfg.Logger, remote: newRemote(&cfg), known: &ledger.Known{}, state: api.StateNotReady,
		wake: make(chan struct{}, 1), reportNow: make(chan struct{}, 1), tried: make(chan struct{}), ready: make(chan struct{}),
		held: map[api.Digest]*held{}, seen: map[api.Digest]verdict{},
	}
	c.provider = newProvider(c)
	c.callbacks.init()
	return c
}

// run starts the loops. Each ends with the client's own context, not Open's.
func (c *Client) run() {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	loops := []func(context.Context){c.tick, c.callbacks.run}
	if len(c.remote.servers) > 0 {
		loops = append(loops, c.follow, c.watch)
		if c.cfg.ReportEvery > 0 {
			loops = append(loops, c.report)
		}
	} else {
		close(c.tried)
	}
	for _, loop := range loops {
		c.wg.Go(func() { loop(ctx) })
	}
}

// Close stops everything and waits for it. Reads go on being answered from what
// was there last.
func (c *Client) Close() {
	c.closed.Do(func() {
		c.stop()
		c.wg.Wait()
		c.keepHeld()
		c.cache.close()
		c.remote.close()
	})
}

// tick reads the override directory and notices heads growing old.
func (c *Client) tick(ctx context.Context) {
	every := overrideEvery
	if c.cfg.OverrideDir == "" {
		every = ageEvery
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		c.readOverrides()
		c.mu.Lock()
		c.refresh()
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-c.provider.initialized:
			if !sleep(ctx, afterInit) {
				return
			}
			c.provider.reannounce()
		}
	}
}

// watch holds an event stream of the first server that gives one. Whatever it
// misses, the poll finds.
func (c *Client) watch(ctx context.Context) {
	path := "/v1/watch?" + url.Values{"service": {c.target.Service}, "target": {c.target.String()}}.Encode()
	var retry backoff
	for ctx.Err() == nil {
		for _, s := range c.remote.servers {
			began := time.Now()
			err := c.remote.watch(ctx, s, path, func() { c.poke(c.wake) })
			c.log.Debug("sealstone: watch ended", slog.String("server", s.base), slog.Any("error", err))
			if time.Since(began) > time.Minute {
				retry = backoff{}
				break // it worked: the first server is the first again
			}
			if ctx.Err() != nil {
				return
			}
		}
		sleep(ctx, min(retry.next(), jitter(watchRetry)))
	}
}

// poke leaves a note for a loop; one that is there already will do.
func (c *Client) poke(note chan struct{}) {
	select {
	case note <- struct{}{}:
	default:
	}
}

// Target is what this process is.
func (c *Client) Target() api.Target { return c.target }

// Modes are the modes that are staged, verified and dry-run for the target:
// normal, and the safe modes that can be entered without fetching anything.
func (c *Client) Modes() []api.Mode { return c.view.Load().staged.modeNames() }

// Evaluate resolves a flag without regard to a wanted type.
func (c *Client) Evaluate(key string, ctx flags.Context) flags.Resolution {
	return c.view.Load().flags.Evaluate(key, ctx, time.Now())
}

// Flags is the compiled set in effect: a snapshot, which a later swap doesn't
// change.
func (c *Client) Flags() *flags.Set { return c.view.Load().flags }
