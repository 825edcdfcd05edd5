package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/instances"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/server"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	repo, branch, data, keys, anchor string
	listen, addrFile                 string
	poll, lease                      time.Duration
	openReads                        bool
	cors                             []string
	ofrepRate                        float64
	hookSecretFile                   string
	gitTokenFile, sshKey, knownHosts string
	fetchTimeout                     time.Duration
}

func newServe(a *app) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve --repo URL --data DIR",
		Short: "Follow a Git repository and serve what its ledger says",
		Long: "Follow a Git repository and serve what its ledger says. The ledger must exist:\n" +
			"serve never creates one. Without clients.yaml in the repository it listens on\n" +
			"loopback only, unless --open-reads says that everybody may read.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.repo, "repo", "", "repository: a path, file://, http(s):// or ssh:// URL (required)")
	f.StringVar(&o.branch, "branch", "main", "branch to follow")
	f.StringVar(&o.data, "data", "", "data directory (required)")
	f.StringVar(&o.keys, "keys", "", "directory with log.key and node.key (default DATA.keys)")
	f.StringVar(&o.anchor, "anchor", "", "file for the last published checkpoint, best on another disk (default DATA/anchor)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:7460", "address to listen on")
	f.StringVar(&o.addrFile, "addr-file", "", "write the address that was bound to this file")
	f.DurationVar(&o.poll, "poll", 10*time.Second, "time between fetches, ± 20 %")
	f.DurationVar(&o.lease, "lease", instances.Lease, "an instance that is silent for longer is gone; clients report every 15 s")
	f.DurationVar(&o.fetchTimeout, "fetch-timeout", time.Minute, "a host that is silent for longer is cut off")
	f.BoolVar(&o.openReads, "open-reads", false, "let everybody read without a token")
	f.StringSliceVar(&o.cors, "cors-origin", nil, "origin whose pages may evaluate flags; repeat for more")
	f.Float64Var(&o.ofrepRate, "ofrep-rate", 0, "OFREP evaluations a second that each token or address may ask for; 0 is no limit")
	f.StringVar(&o.hookSecretFile, "hook-secret-file", "", "file with the secret of POST /hooks/git")
	f.StringVar(&o.gitTokenFile, "git-token-file", "", "file with the token for an http(s) repository, read again at each fetch")
	f.StringVar(&o.sshKey, "ssh-key-file", "", "private key for an ssh repository")
	f.StringVar(&o.knownHosts, "known-hosts", "", "known_hosts file for an ssh repository")
	_ = cmd.MarkFlagRequired("repo")
	_ = cmd.MarkFlagRequired("data")
	return cmd
}

func (a *app) serve(ctx context.Context, o serveOptions) (err error) {
	log := slog.New(slog.NewTextHandler(a.err, nil))
	n, err := openNode(o, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.mayListen(ctx, o); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	if o.addrFile != "" {
		if err := os.WriteFile(o.addrFile, []byte(ln.Addr().String()+"\n"), 0o644); err != nil {
			return errors.Join(err, ln.Close())
		}
	}
	log.Info("serving", slog.String("address", "http://"+ln.Addr().String()), slog.String("origin", n.origin), slog.Int64("size", n.store.Snapshot().Tree.Size), slog.String("anchor", cmp.Or(o.anchor, filepath.Join(o.data, "anchor"))))
	return n.run(ctx, ln)
}

// node is an opened server with what must be closed after it.
type node struct {
	server *server.Server
	store  *store.Store
	source *bundler.Source
	seen   *instances.Table
	origin string

	options serveOptions
	log     *slog.Logger
}

func openNode(o serveOptions, log *slog.Logger) (*node, error) {
	trust, err := dataTrust(o.data)
	if err != nil {
		return nil, err
	}
	cfg, err := storeConfig(o.data, keysDir(o.keys, o.data), trust)
	if err != nil {
		return nil, err
	}
	cfg.Anchor = o.anchor
	secret, err := readSecret(o.hookSecretFile)
	if err != nil {
		return nil, err
	}
	source, err := bundler.OpenSource(bundler.SourceConfig{URL: o.repo, Branch: o.branch, Dir: filepath.Join(o.data, gitDir), TokenFile: o.gitTokenFile,
		SSHKeyFile: o.sshKey, KnownHostsFile: o.knownHosts, Timeout: o.fetchTimeout})
	if err != nil {
		return nil, err
	}
	st, err := store.Open(cfg)
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	seen, err := openInstances(filepath.Join(o.data, "instances.db"), log)
	if err != nil {
		return nil, errors.Join(err, st.Close(), source.Close())
	}
	seen.SetLease(cmp.Or(o.lease, instances.Lease))
	s, err := server.New(server.Config{Store: st, Instances: seen, Source: source, Branch: o.branch, Poll: o.poll,
		OpenReads: o.openReads, Public: o.public(), PendingFile: filepath.Join(o.data, "pending"), CORSOrigins: o.cors, OFREPRate: o.ofrepRate, HookSecret: secret, Version: version(), Logger: log})
	if err != nil {
		return nil, errors.Join(err, seen.Close(time.Now()), st.Close(), source.Close())
	}
	return &node{s, st, source, seen, trust.Origin, o, log}, nil
}

// openInstances begins anew beside a file that can't be read: it holds
// observations only, and must not keep a server from starting.
func openInstances(path string, log *slog.Logger) (*instances.Table, error) {
	t, err := instances.Open(path, time.Now())
	if !kv.Damaged(err) {
		return t, err
	}
	log.Warn("what instances reported can't be read, beginning anew", slog.String("moved", path+".damaged"), slog.Any("error", err))
	if err := os.Rename(path, path+".damaged"); err != nil {
		return nil, err
	}
	return instances.Open(path, time.Now())
}

func readSecret(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("webhook secret: %w", err)
	}
	if b = []byte(strings.TrimSpace(string(b))); len(b) < 16 {
		return nil, fmt.Errorf("webhook secret in %s: at least 16 bytes", path)
	}
	return b, nil
}

// mayListen keeps an unprotected server off the network. A repository that has
// not been fetched yet counts as unprotected.
func (n *node) mayListen(ctx context.Context, o serveOptions) error {
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return fmt.Errorf("--listen %q: %w", o.listen, err)
	}
	if o.openReads || !o.public() {
		return nil
	}
	if !n.server.HasClients() { // a first start: look before refusing
		ctx, cancel := context.WithTimeout(ctx, o.fetchTimeout)
		defer cancel()
		if err := n.server.Reconcile(ctx); err != nil {
			return fmt.Errorf("--listen %s: whether clients.yaml restricts reads is not known: %w", o.listen, err)
		}
	}
	if n.server.HasClients() {
		return nil
	}
	return fmt.Errorf("--listen %s would let everybody read: add clients.yaml to the repository, or say --open-reads", o.listen)
}

// public reports whether others than this machine can connect.
func (o serveOptions) public() bool {
	host, _, err := net.SplitHostPort(o.listen)
	ip := net.ParseIP(host)
	return err == nil && o.listen != "" && host != "localhost" && (ip == nil || !ip.IsLoopback())
}

// run serves until ctx ends: new requests are refused, streams end, the loops
// stop, the store closes.
func (n *node) run(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hs := &http.Server{Handler: n.server, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, BaseContext: func(net.Listener) context.Context { return ctx }}
	loops := make(chan struct{})
	go func() {
		var wg sync.WaitGroup
		wg.Go(func() { n.followTrust(ctx) })
		n.server.Run(ctx)
		wg.Wait()
		close(loops)
	}()
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(ln) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		cancel()
	}
	stop, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	if hs.Shutdown(stop) != nil {
		_ = hs.Close()
	}
	<-loops
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// followTrust takes newer versions of the trust file, as trust install puts them
// there. One that can't be used is logged once, stays in status, and changes
// nothing.
func (n *node) followTrust(ctx context.Context) {
	every := n.options.poll
	if every <= 0 {
		every = 10 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		version, err := n.takeTrust(ctx)
		n.server.TrustFile(err)
		switch {
		case err != nil && err.Error() != said:
			said = err.Error()
			n.log.Error("the trust file in the data directory can't be used", slog.Any("error", err))
		case err == nil && version > 0:
			n.log.Info("new version of the trust file", slog.Int("version", version))
		}
	}
}

func (n *node) takeTrust(ctx context.Context) (version int, err error) {
	trust, err := dataTrust(n.options.data)
	if err != nil || trust.Version <= n.store.Trusted().Version {
		return 0, err
	}
	cfg, err := storeConfig(n.options.data, keysDir(n.options.keys, n.options.data), trust)
	if err == nil {
		err = n.store.Rotate(ctx, trust, cfg.More)
	}
	if err != nil {
		return 0, fmt.Errorf("version %d lies there, version %d is in use: %w", trust.Version, n.store.Trusted().Version, err)
	}
	return trust.Version, nil
}

func (n *node) close() error {
	return errors.Join(n.seen.Close(time.Now()), n.store.Close(), n.source.Close())
}
