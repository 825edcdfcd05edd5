package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/open-feature/go-sdk/openfeature"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/crypto/ssh"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/plan"
	"github.com/sealstone/sealstone/sdk"
	"github.com/sealstone/sealstone/sdk/telemetry"
)

// demo is the state of the story: real parts, on loopback.
type demo struct {
	*app
	out      io.Writer
	dir      string
	repo     *git.Repository
	node     *node
	url      string
	services []*demoService
	stops    []func() error // popped in reverse
}

const demoOrigin = "shop.example/sealstone"

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }
func (d *demo) trustPath() string       { return filepath.Join(d.path("data"), trustFile) }

func (d *demo) stop() error {
	var errs []error
	for i := len(d.stops) - 1; i >= 0; i-- {
		errs = append(errs, d.stops[i]())
	}
	return errors.Join(errs...)
}

// setUp lays out the repository, makes a root's and an SRE's key, the ledger,
// and the signed operators.
func (d *demo) setUp(ctx context.Context) error {
	if err := os.CopyFS(d.path("shop"), examples.Shop()); err != nil {
		return err
	}
	var err error
	d.repo, err = git.PlainInitWithOptions(d.path("shop"), &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName("main")}})
	if err != nil {
		return err
	}
	for _, name := range []string{"root", "sre"} {
		if err := writeSSHKey(d.path(name), name+"@shop.example"); err != nil {
			return err
		}
	}
	first, err := d.commit("Ada Editor", "Start the shop's configuration")
	if err != nil {
		return err
	}
	l, err := createLedger(d.path("data"), keysDir("", d.path("data")), demoOrigin, d.path("root.pub"))
	if err != nil {
		return err
	}
	if err := d.signOperators(ctx); err != nil {
		return err
	}
	if err := d.pinProd(ctx, first); err != nil {
		return err
	}
	d.say("repository  %s, 3 services, prod pinned to %s", d.path("shop"), short(first))
	d.say("ledger      %s, entry 0 names the trust file", l.Origin)
	d.say("root key    %s signed who may enter safe modes: the SRE's key, in prod", l.Root)
	return nil
}

// pinProd promotes every service's release to prod, as pull requests would.
func (d *demo) pinProd(ctx context.Context, release string) error {
	for _, service := range demoNames {
		if _, _, err := promoteIn(ctx, d.path("shop"), service, "prod", release, "", plan.Options{}); err != nil {
			return err
		}
	}
	_, err := d.commit("Olu Operator", "Pin prod to the first release")
	return err
}

func (d *demo) signOperators(ctx context.Context) error {
	sre, err := os.ReadFile(d.path("sre.pub"))
	if err != nil {
		return err
	}
	text := fmt.Sprintf("version: 1\noperators:\n  - id: sre-on-call\n    name: Sam Reliable\n    keys: [%q]\n    may:\n      - do: [safe-mode, record]\n        services: [\"*\"]\n        scopes: [prod, staging]\n",
		strings.TrimSpace(string(sre)))
	if err := os.WriteFile(filepath.Join(d.path("shop"), "operators.yaml"), []byte(text), 0o644); err != nil {
		return err
	}
	root := &app{out: discard, err: discard, output: "table", key: d.path("root"), trust: d.trustPath()}
	return root.operatorsSign(ctx, d.path("shop"))
}

func writeSSHKey(path, comment string) error {
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	return os.WriteFile(path+".pub", []byte(ledger.NewSSHKey(pub).String()+" "+comment+"\n"), 0o644)
}

// commit stages everything and commits it.
func (d *demo) commit(author, message string) (string, error) {
	tree, err := d.repo.Worktree()
	if err != nil {
		return "", err
	}
	if err := tree.AddWithOptions(&git.AddOptions{All: true}); err != nil {
		return "", err
	}
	who := &object.Signature{Name: author, Email: strings.ToLower(strings.Fields(author)[0]) + "@shop.example", When: time.Now()}
	h, err := tree.Commit(message, &git.CommitOptions{Author: who})
	return h.String(), err
}

// startServer runs the server and waits until it accepted the tip.
func (d *demo) startServer(ctx context.Context) error {
	start := time.Now()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.url = "http://" + ln.Addr().String()
	o := serveOptions{repo: d.path("shop"), branch: "main", data: d.path("data"), poll: 200 * time.Millisecond, fetchTimeout: time.Minute}
	if d.node, err = openNode(o, slog.New(slog.NewTextHandler(discard, nil))); err != nil {
		return errors.Join(err, ln.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- d.node.run(ctx, ln) }()
	d.stops = append(d.stops, func() error { cancel(); return errors.Join(<-done, d.node.close()) })
	if err := eventually(ctx, "the first activation", func() bool { return d.node.server.Status().Source.Tip != "" }); err != nil {
		return err
	}
	st := d.node.server.Status()
	if len(st.Rejected) > 0 {
		return fmt.Errorf("rejected: %v", st.Rejected)
	}
	d.say("%s serves; %d entries in the log, every set activated %s after the start", d.url, st.Size, span(time.Since(start)))
	d.say("operators version %d in force; log root %s", st.Operators, st.Root)
	return nil
}

var demoNames = []string{"catalog", "checkout", "payments"}

// demoService is a small service: HTTP in front, OpenFeature behind, and
// nothing of Sealstone in its business code but the provider.
type demoService struct {
	target api.Target
	client *sdk.Client
	flags  *openfeature.Client
	addr   string

	metrics *prometheus.Registry // of what its users see
	buyers  atomic.Int64
}

// What the demo's services say that they were built into.
var (
	demoImage = string(api.DigestOf([]byte("image of the demo")))
	demoBase  = string(api.DigestOf([]byte("base image of the demo")))
)

func (d *demo) startServices(ctx context.Context) error {
	for _, name := range demoNames {
		for _, scope := range []string{"staging", "prod/eu-west-1", "prod/us-east-1"} {
			s, err := d.startService(ctx, mustTarget(name+"@"+scope))
			if err != nil {
				return fmt.Errorf("%s@%s: %w", name, scope, err)
			}
			d.services = append(d.services, s)
		}
	}
	for _, s := range d.services {
		live := s.client.Live()
		d.say("%-26s %-8s bundle %s  safe modes ready: %v", s.target, live.State, live.Bundle.Short(), live.SafeModes)
	}
	return nil
}

func (d *demo) startService(ctx context.Context, t api.Target) (*demoService, error) {
	id := strings.NewReplacer("@", "-", "/", "-").Replace(t.String()) + "-1"
	client, err := sdk.Open(ctx, sdk.Config{
		Servers: []string{d.url}, Target: t.String(), Trust: d.trustPath(), Cache: d.path("cache/" + id),
		Instance: sdk.Instance{ID: id, Version: "2.4.1", Image: demoImage, BaseImage: demoBase}, Logger: slog.New(slog.NewTextHandler(discard, nil)),
	})
	if err != nil {
		return nil, err
	}
	d.stops = append(d.stops, func() error { client.Close(); return nil })
	if err := openfeature.SetNamedProviderAndWait(id, client.Provider()); err != nil {
		return nil, err
	}
	s := &demoService{target: t, client: client, flags: openfeature.NewClient(id), metrics: prometheus.NewRegistry()}
	tel, err := telemetry.New(client, telemetry.Config{Registerer: s.metrics})
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.addr = ln.Addr().String()
	mux := http.NewServeMux()
	mux.Handle("/", s)
	mux.Handle("/buy", tel.Edge(http.HandlerFunc(s.buy)))
	mux.Handle("/metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	hs := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = hs.Serve(ln) }()
	d.stops = append(d.stops, hs.Close)
	return s, nil
}

// ServeHTTP is the service's page: what a buyer would get.
func (s *demoService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	buyer := openfeature.NewEvaluationContext("buyer-7", map[string]any{"country": "DE", "appVersion": "4.3.0", "email": "kim@mail.example"})
	banner, _ := s.flags.BooleanValueDetails(r.Context(), "maintenance-banner", false, buyer)
	express, _ := s.flags.BooleanValueDetails(r.Context(), "express-checkout", false, buyer)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"target": s.target.String(), "banner": banner.Value, "expressCheckout": express.Value, "bundle": banner.FlagMetadata["version"], "mode": s.client.Live().Mode,
	})
}

// buy has a fault that shows with the express checkout only, so that there is an
// impact to look for: one buyer in four gets an error.
func (s *demoService) buy(w http.ResponseWriter, r *http.Request) {
	n := s.buyers.Add(1)
	if on, _ := s.flags.BooleanValue(r.Context(), "express-checkout", false, openfeature.NewEvaluationContext("buyer-7", nil)); on && n%4 == 0 {
		http.Error(w, "no such payment", http.StatusInternalServerError)
	}
}

// sell lets buyers come to a service.
func (s *demoService) sell(ctx context.Context) error {
	for range 40 {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.addr+"/buy", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_ = res.Body.Close()
	}
	return nil
}

// banner is what the service shows now, asked over HTTP like a user would.
func (s *demoService) banner() (bool, error) {
	res, err := http.Get("http://" + s.addr + "/")
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	var page struct {
		Banner bool `json:"banner"`
	}
	err = json.NewDecoder(res.Body).Decode(&page)
	return page.Banner, err
}

// wait polls services until all show the banner as wanted.
func (d *demo) wait(ctx context.Context, want bool, match func(api.Target) bool) (int, error) {
	n := 0
	for _, s := range d.services {
		if !match(s.target) {
			continue
		}
		n++
		if err := eventually(ctx, s.target.String()+" shows the change", func() bool { got, err := s.banner(); return err == nil && got == want }); err != nil {
			return n, err
		}
	}
	return n, nil
}

// service finds a running service.
func (d *demo) service(target string) *demoService {
	for _, s := range d.services {
		if s.target.String() == target {
			return s
		}
	}
	return nil
}
