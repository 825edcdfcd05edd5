package bundler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/durable"
)

// Refs of the bare repository. Everything reachable from a ref below
// refs/sealstone/ is there in full; the rest may be removed by a `git gc`.
const (
	refRemote   = "refs/sealstone/remote"   // what the last Fetch saw
	refAccepted = "refs/sealstone/accepted" // what the server accepted
)

// What a Fetch can end with. The text names the redacted URL and
// the cause, and never holds a credential.
var (
	errUnreachable     = errors.New("source unreachable")
	errBranchGone      = errors.New("branch does not exist at the source")
	errEmptyRepository = errors.New("source is an empty repository")
)

// defaultTimeout is how long a host may stay silent.
const defaultTimeout = 60 * time.Second

// SourceConfig says where the configuration repository is and how to get in.
type SourceConfig struct {
	URL    string // a path, file://, http(s)://, ssh://, or user@host:path
	Branch string // short name, "main"
	Dir    string // bare repository, created when absent; may be lost, then the next Fetch is a full one

	// TokenFile holds an http(s) token. It is read at each attempt, so that a
	// rotated token needs no restart, and sent to the URL's own host only.
	TokenFile string

	SSHKeyFile     string // empty: the keys of ssh-agent
	KnownHostsFile string // empty: the user's known_hosts; an unknown host is always refused

	// Timeout is how long a host may take to list its branches, and then for
	// each further 64 KiB of a pack. Zero means 60 seconds.
	Timeout time.Duration
}

func (c *SourceConfig) validate() error {
	var errs []error
	if c.URL == "" {
		errs = append(errs, errors.New("no URL"))
	}
	if c.Branch == "" || strings.HasPrefix(c.Branch, "refs/") {
		errs = append(errs, errors.New("the branch must be a short name such as main"))
	}
	if c.Dir == "" {
		errs = append(errs, errors.New("no folder for the repository"))
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	return errors.Join(errs...)
}

// Source follows one branch of a Git repository into a bare repository on disk:
// full history, nothing checked out, nothing ever removed. It decides nothing:
// that a rewritten branch arrived is for the caller to judge.
//
// Any number of goroutines may read through Git while one of them fetches.
type Source struct {
	cfg    SourceConfig
	end    *transport.Endpoint
	shared *sharedObjects
	repo   *git.Repository

	mu sync.Mutex // held by Fetch and Keep: one writer
}

// OpenSource opens or creates the bare repository. It doesn't touch the
// network, so it works when the source is down.
func OpenSource(cfg SourceConfig) (*Source, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("git source: %w", err)
	}
	end, err := parseSourceURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("git source: %w", err)
	}
	if err := prepareBare(cfg.Dir); err != nil {
		return nil, fmt.Errorf("git source: %w", err)
	}
	s := &Source{cfg: cfg, end: end, shared: newSharedObjects(cfg.Dir, osfs.New(cfg.Dir))}
	if s.repo, err = git.Open(s.shared, nil); err != nil {
		return nil, fmt.Errorf("git source: open %s: %w", cfg.Dir, err)
	}
	return s, nil
}

// Git is the bare repository, for reading. It stays valid, is safe for
// concurrent use, and sees what later fetches bring.
func (s *Source) Git() *git.Repository { return s.repo }

// URL is the source's address without credentials.
func (s *Source) URL() string { return redactURL(s.cfg.URL) }

// Close releases files. Reading after Close is a mistake.
func (s *Source) Close() error { return s.shared.Close() }

// Fetch brings the branch's newest commit and everything it needs into the bare
// repository, moves its own ref there, also backwards, and returns the commit.
// It may be killed at any instant: the ref moves last, and the next call
// continues from what is on disk.
func (s *Source) Fetch(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, dog := newWatchdog(ctx, s.cfg.Timeout)
	defer dog.stop()
	tip, err := s.fetch(ctx, dog)
	if err != nil {
		return "", s.explain(ctx, err)
	}
	return tip.String(), nil
}

func (s *Source) fetch(ctx context.Context, dog *watchdog) (plumbing.Hash, error) {
	remote, err := s.connect(ctx)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	defer remote.Close()
	adv, err := remote.AdvertisedReferencesContext(ctx)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	tip, err := pickTip(adv, s.cfg.Branch)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if known := s.ref(refRemote); known == tip && s.shared.has(tip) {
		return tip, nil
	}
	if !s.shared.has(tip) {
		if err := s.download(ctx, remote, adv, tip, dog); err != nil {
			return plumbing.ZeroHash, err
		}
	}
	return tip, s.setRef(refRemote, tip)
}

// pickTip finds the branch in what the remote has.
func pickTip(adv *packp.AdvRefs, branch string) (plumbing.Hash, error) {
	switch tip, ok := adv.References[plumbing.NewBranchReferenceName(branch).String()]; {
	case len(adv.Shallows) > 0:
		return plumbing.ZeroHash, fmt.Errorf("%w: a rewrite could not be told from progress", ErrShallow)
	case ok:
		return tip, nil
	case len(adv.References) == 0:
		return plumbing.ZeroHash, errEmptyRepository
	default:
		return plumbing.ZeroHash, fmt.Errorf("%w: %.100q", errBranchGone, branch)
	}
}

// download asks for tip, given what we have, and stores the answer.
func (s *Source) download(ctx context.Context, remote transport.UploadPackSession, adv *packp.AdvRefs, tip plumbing.Hash, dog *watchdog) error {
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	req.Wants = []plumbing.Hash{tip}
	for _, name := range []string{refRemote, refAccepted} {
		if h := s.ref(name); !h.IsZero() {
			req.Haves = append(req.Haves, h)
		}
	}
	res, err := remote.UploadPack(ctx, req)
	if err != nil {
		return err
	}
	defer res.Close()
	err = s.shared.receive(dog.reader(demux(req.Capabilities, res)))
	if errors.Is(err, errHeavy) {
		return fmt.Errorf("the host's pack has %w; take files of more than %d MiB out of the branch's history", err, maxDelta>>20)
	}
	if err == nil && !s.shared.has(tip) {
		err = fmt.Errorf("the host's pack lacks commit %s", tip)
	}
	return err
}

// Keep notes that a commit, which is here already, was accepted: it stays readable
// after the branch was rewritten.
func (s *Source) Keep(commit string) error {
	if !api.IsCommit(commit) {
		return fmt.Errorf("git source: keep %.64q: %w", commit, ErrNoCommit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := plumbing.NewHash(commit)
	if !s.shared.has(h) {
		return fmt.Errorf("git source: keep %s: %w", commit, plumbing.ErrObjectNotFound)
	}
	if s.ref(refAccepted) == h {
		return nil
	}
	return s.setRef(refAccepted, h)
}

// ref reads one of our refs. A missing or damaged one is zero: the cost is a
// larger fetch.
func (s *Source) ref(name string) plumbing.Hash {
	b, err := os.ReadFile(filepath.Join(s.cfg.Dir, name))
	line := strings.TrimSpace(string(b))
	if h := plumbing.NewHash(line); err == nil && api.IsCommit(line) && s.shared.has(h) {
		return h
	}
	return plumbing.ZeroHash
}

// setRef replaces a ref in one step. go-git truncates the file first, which a
// kill at the wrong instant leaves empty. A crash may bring back the old one.
func (s *Source) setRef(name string, h plumbing.Hash) error {
	return durable.Replace(filepath.Join(s.cfg.Dir, name), []byte(h.String()+"\n"), 0o644)
}

// explain gives an error its kind and takes out what nobody must read.
func (s *Source) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		err = errEmptyRepository
	case errors.Is(err, ErrShallow), errors.Is(err, errBranchGone), errors.Is(err, errEmptyRepository), errors.Is(err, errHeavy), localFault(err):
	default:
		if cause := context.Cause(ctx); cause != nil {
			err = errors.Join(cause, err)
		}
		return s.redacted(errUnreachable, err)
	}
	return s.redacted(nil, err)
}

// localFault tells our own disk's faults from the host's.
func localFault(err error) bool {
	var se *storeError
	return errors.As(err, &se)
}

// redacted flattens err's text, because a cause deep inside may quote a URL
// with a password, or a page of HTML. Kinds stay visible to errors.Is.
func (s *Source) redacted(kind, err error) error {
	text := cleanText(err.Error(), s.secrets())
	for _, k := range []error{ErrShallow, errBranchGone, errEmptyRepository, context.Canceled, context.DeadlineExceeded, errSilent,
		transport.ErrAuthenticationRequired, transport.ErrAuthorizationFailed, transport.ErrRepositoryNotFound, fs.ErrNotExist} {
		if errors.Is(err, k) {
			return &sourceError{url: s.URL(), kind: kind, cause: k, text: text}
		}
	}
	return &sourceError{url: s.URL(), kind: kind, text: text}
}

type sourceError struct {
	url, text   string
	kind, cause error
}

func (e *sourceError) Error() string {
	if e.kind == nil {
		return fmt.Sprintf("git source %s: %s", e.url, e.text)
	}
	return fmt.Sprintf("%s: %s: %s", e.kind, e.url, e.text)
}

func (e *sourceError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
