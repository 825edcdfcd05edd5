package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

func newVerify(a *app) *cobra.Command {
	var data, repo string
	var rebuild bool
	cmd := &cobra.Command{
		Use:   "verify (--server URL | --data DIR | FILE) [--trust FILE]",
		Short: "Verify a log, a data directory, or a single proof",
		Long: "Verify everything a log says from entry 0: hashes, signatures, permissions, chains\n" +
			"and the fold. --server reads it over /log/, --data from a stopped server's files,\n" +
			"FILE is what changes proof wrote and needs no network. With --rebuild each set that\n" +
			"the log names is built again from Git and compared. Exit 3 on any finding.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if rebuild && repo == "" {
				return errors.New("--rebuild: which repository? pass --repo URL")
			}
			v, err := a.verify(c.Context(), data, args)
			if err != nil {
				return err
			}
			if rebuild {
				a.rebuild(c.Context(), repo, v)
			}
			return a.verdict(v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "", "data directory of a server that is not running, or a copy")
	f.BoolVar(&rebuild, "rebuild", false, "build every set that the log names from Git and compare digests")
	f.StringVar(&repo, "repo", "", "repository for --rebuild")
	return cmd
}

// verification is what verify found.
type verification struct {
	Origin   string        `json:"origin"`
	Size     int64         `json:"size"`
	Root     string        `json:"root"`
	Entries  int64         `json:"entries"` // checked
	Rebuilt  int           `json:"rebuilt,omitempty"`
	Proven   []string      `json:"proven,omitempty"` // of a FILE: what it proves, in words
	Findings []string      `json:"findings"`
	Took     time.Duration `json:"-"`

	activations []activationRef
}

// activationRef is what --rebuild builds again.
type activationRef struct {
	index int64
	data  ledger.Data
}

func (v *verification) find(format string, args ...any) {
	v.Findings = append(v.Findings, fmt.Sprintf(format, args...))
}

func (v *verification) note(index int64, c *ledger.Change) {
	if c.Kind() == ledger.BundleActivated {
		v.activations = append(v.activations, activationRef{index, c.Data})
	}
}

func (a *app) verify(ctx context.Context, data string, args []string) (*verification, error) {
	start := time.Now()
	v := &verification{Findings: []string{}}
	var err error
	switch {
	case len(args) == 1:
		err = a.verifyFile(args[0], v)
	case data != "":
		err = a.verifyData(ctx, data, v)
	case a.server != "":
		err = a.verifyServer(ctx, v)
	default:
		err = errors.New("verify what? pass --server URL, --data DIR or a FILE")
	}
	v.Took = time.Since(start)
	return v, err
}

func (a *app) verdict(v *verification) error {
	err := a.print(v, func(w io.Writer) {
		for _, f := range v.Findings {
			fmt.Fprintln(w, "finding: "+printable(strings.ReplaceAll(f, "\n", "; ")))
		}
		if len(v.Findings) > 0 {
			fmt.Fprintf(w, "%s  %s: %d findings in %d entries\n", colour(w, "31", "NOT VERIFIED"), v.Origin, len(v.Findings), v.Entries)
			return
		}
		for _, p := range v.Proven {
			fmt.Fprintln(w, "proven: "+printable(p))
		}
		fmt.Fprintf(w, "%s  %s: %d entries, root %s", colour(w, "32", "VERIFIED"), v.Origin, v.Entries, v.Root)
		if v.Rebuilt > 0 {
			fmt.Fprintf(w, ", %d sets rebuilt", v.Rebuilt)
		}
		fmt.Fprintf(w, " (%s)\n", span(v.Took))
	})
	if err == nil && len(v.Findings) > 0 {
		return exitCode(exitProof)
	}
	return err
}

// prove says in words what a proven change is.
func (v *verification) prove(ec *ledger.EvidenceChange) {
	c, err := ledger.ParseLeaf(ec.Leaf)
	if err != nil {
		return // a finding by now
	}
	line := fmt.Sprintf("entry %d: %s %s %s, recorded %s", ec.Index, c.Kind(), c.Subject, what(&c.Data.Fields), c.RecordedTime)
	if c.Statement != nil {
		line += ", signed by " + c.Statement.Envelope.Signatures[0].KeyID
	}
	if reason, ok := ec.Detail["reason"].(string); ok {
		line += fmt.Sprintf(", reason %q", clipText(reason, 60))
	}
	v.Proven = append(v.Proven, oneLine(line))
}

func (v *verification) tree(t ledger.Tree) {
	v.Size, v.Root = t.Size, ledger.EncodeRoot(t)
}

// verifyFile checks a proof or an export with a trust file alone.
func (a *app) verifyFile(path string, v *verification) error {
	trust, err := a.needTrust(context.Background(), nil)
	if err != nil {
		return err
	}
	b, err := a.readFile(path)
	if err != nil {
		return err
	}
	var e ledger.Evidence
	if err := json.Unmarshal(b, &e); err != nil {
		v.Origin = trust.Origin
		v.find("%s is damaged, or no evidence at all: %v", path, err)
		return nil
	}
	if e.Checkpoint == "" || len(e.Changes) == 0 && e.Head == "" {
		return fmt.Errorf("%s is not evidence: it has no checkpoint, or proves no change; sealstone changes proof writes one", path)
	}
	v.Origin = trust.Origin
	tree, err := trust.OpenCheckpoint([]byte(e.Checkpoint))
	if err != nil {
		v.find("%v", err)
		return nil
	}
	v.tree(tree)
	if e.Head != "" {
		head, err := trust.OpenHead([]byte(e.Head))
		if err == nil {
			_, err = trust.Prove(&e, head.Service, nil)
		}
		if err != nil {
			v.find("%v", err)
		}
	} else if err := trust.ProveAlone(&e, tree); err != nil {
		v.find("%v", err)
	}
	v.Entries = int64(len(e.Changes))
	for _, ec := range e.Changes {
		v.prove(&ec)
	}
	return nil
}

// verifyData checks the files of a stopped server, or of a copy.
func (a *app) verifyData(ctx context.Context, data string, v *verification) error {
	trust, err := a.loadTrust()
	if trust == nil && err == nil {
		trust, err = dataTrust(data)
	}
	if err != nil {
		return err
	}
	st, err := store.Open(store.Config{Dir: data, Trust: trust, ReadOnly: true})
	if err != nil {
		v.Origin = trust.Origin
		v.find("%v", err)
		return nil
	}
	defer st.Close()
	report, err := st.Verify(ctx, a.progress("entries"))
	if err != nil {
		return err
	}
	v.Origin, v.Entries = trust.Origin, report.Tree.Size
	v.tree(report.Tree)
	for _, f := range report.Findings {
		v.find("%s", strings.TrimPrefix(f.String(), f.Where+": "+f.Where+": "))
	}
	for i := range st.Snapshot().Tree.Size {
		if c, err := st.Change(i); err == nil {
			v.note(i, c)
		}
	}
	return nil
}

// progress prints a line that grows, on a terminal only.
func (a *app) progress(what string) func(done, total int64) {
	f, ok := a.err.(*os.File)
	if !ok || colour(f, "0", "") == "" {
		return func(int64, int64) {}
	}
	return func(done, total int64) {
		fmt.Fprintf(f, "\r%s %d of %d", what, done, total)
		if done == total {
			fmt.Fprint(f, "\r\x1b[K")
		}
	}
}

// verifyServer reads the whole log as any C2SP client does and replays it.
func (a *app) verifyServer(ctx context.Context, v *verification) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	trust, err := a.needTrust(ctx, c)
	if err != nil {
		return err
	}
	v.Origin = trust.Origin
	raw, err := c.do(ctx, http.MethodGet, "/log/checkpoint", nil)
	if err != nil {
		return err
	}
	tree, err := trust.OpenCheckpoint(raw)
	if err != nil {
		v.find("%v", err)
		return nil
	}
	v.tree(tree)
	r := ledger.NewReplay(trust)
	r.Each = v.note
	report := a.progress("entries")
	for n := int64(0); n*256 < tree.Size; n++ {
		leaves, err := c.entries(ctx, n, int(min(256, tree.Size-n*256)))
		if err != nil {
			return err
		}
		for _, leaf := range leaves {
			if err := r.Add(leaf); err != nil {
				v.find("%v", err)
				v.Entries = r.State.Size
				return nil
			}
		}
		report(r.State.Size, tree.Size)
	}
	v.Entries = r.State.Size
	if r.Tree() != tree {
		v.find("the entries hash to another root than the signed checkpoint's")
	}
	return nil
}

// entries fetches one entry bundle.
func (c *client) entries(ctx context.Context, n int64, width int) ([][]byte, error) {
	path := "/log/tile/entries/" + tilePath(n)
	if width < 256 {
		path += fmt.Sprintf(".p/%d", width)
	}
	b, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for len(b) >= 2 {
		size := int(binary.BigEndian.Uint16(b))
		if len(b) < 2+size {
			break
		}
		out, b = append(out, b[2:2+size]), b[2+size:]
	}
	if len(b) > 0 || len(out) != width {
		return nil, fmt.Errorf("%w: %s holds %d entries, want %d", errProof, path, len(out), width)
	}
	return out, nil
}

// tilePath spells a tile's number in C2SP's groups of three digits.
func tilePath(n int64) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	return s
}

// rebuild builds every set that the log named from Git again.
func (a *app) rebuild(ctx context.Context, url string, v *verification) {
	branch := "main"
	if len(v.activations) > 0 {
		branch = strings.TrimPrefix(v.activations[0].data.Release.Ref, "refs/heads/")
	}
	repo, closeRepo, err := openAnyRepo(ctx, url, branch)
	if err != nil {
		v.find("--rebuild: %v", err)
		return
	}
	defer closeRepo()
	b := bundler.New(repo)
	report := a.progress("sets")
	defer func() { report(int64(len(v.activations)), int64(len(v.activations))) }()
	for i, act := range v.activations {
		report(int64(i), int64(len(v.activations)))
		rel := act.data.Release
		built, err := b.Rebuild(ctx, rel.Commit, act.data.Service, act.data.Scope)
		switch {
		case err != nil:
			v.find("entry %d: commit %s can't be built: %v", act.index, short(rel.Commit), err)
		case built.Digest != act.data.Set.Digest:
			v.find("entry %d: %s at %s was activated as %s, but commit %s builds to %s", act.index, act.data.Service, act.data.Scope,
				act.data.Set.Digest, short(rel.Commit), built.Digest)
		default:
			v.Rebuilt++
		}
	}
}

// openAnyRepo opens a local repository, or fetches a remote one for this run.
func openAnyRepo(ctx context.Context, url, branch string) (*bundler.Repo, func(), error) {
	if url == "" {
		return nil, nil, errors.New("which repository? pass --repo URL")
	}
	if !strings.Contains(url, "://") {
		repo, err := bundler.OpenRepo(url)
		return repo, func() {}, err
	}
	dir, err := os.MkdirTemp("", "sealstone-rebuild-")
	if err != nil {
		return nil, nil, err
	}
	cleanup := func() { _ = os.RemoveAll(dir) }
	src, err := bundler.OpenSource(bundler.SourceConfig{URL: url, Branch: branch, Dir: dir})
	if err == nil {
		_, err = src.Fetch(ctx)
	}
	if err != nil {
		cleanup()
		return nil, nil, err
	}
	return bundler.NewRepo(src.Git()), func() { _ = src.Close(); cleanup() }, nil
}
