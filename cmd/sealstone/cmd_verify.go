package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/mirror"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/server"
)

func newVerify(a *app) *cobra.Command {
	var data, mirror, repo string
	var rebuild bool
	cmd := &cobra.Command{
		Use:   "verify (--server URL | --mirror DIR|URL | --data DIR | FILE...) [--trust FILE]",
		Short: "Verify a log, a data directory, or a single proof",
		Long: "Verify everything a log says from entry 0: hashes, signatures, permissions, chains\n" +
			"and the fold. --server reads it over /log/, --mirror from a copy that sealstone mirror\n" +
			"made or from a web server that shows one, --data from a stopped server's files; FILE\n" +
			"is what changes proof wrote, or a directory of it, and needs no network. With --rebuild each set that the\n" +
			"log names is built again from Git and compared. Exit 3 on any finding.",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if rebuild && repo == "" {
				return errors.New("--rebuild: which repository? pass --repo URL")
			}
			v, err := a.verify(c.Context(), data, mirror, args)
			if err != nil {
				return err
			}
			if rebuild {
				a.rebuild(c.Context(), repo, v)
			}
			if err := c.Context().Err(); err != nil {
				return err // half a verification is none
			}
			return a.verdict(v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "", "data directory of a server that is not running, or a copy")
	f.StringVar(&mirror, "mirror", "", "directory that sealstone mirror made, or the URL of a web server that shows it")
	f.BoolVar(&rebuild, "rebuild", false, "build every set that the log names from Git and compare digests")
	f.StringVar(&repo, "repo", "", "repository for --rebuild")
	return cmd
}

// verification is what verify found.
type verification struct {
	Origin   string        `json:"origin"`
	Size     int64         `json:"size"`
	Root     string        `json:"root"`
	Entries  int64         `json:"entries"`            // checked
	Details  int64         `json:"details,omitempty"`  // that are what their leaf names
	Erased   int64         `json:"erased,omitempty"`   // details that the log says are gone
	Withheld int64         `json:"withheld,omitempty"` // objects that it says nobody gets any more
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
	if c.Kind() == ledger.ObjectErased {
		v.Withheld++
	}
	if c.Kind() == ledger.BundleActivated {
		v.activations = append(v.activations, activationRef{index, c.Data})
	}
}

func (a *app) verify(ctx context.Context, data, mirror string, args []string) (*verification, error) {
	start := time.Now()
	v := &verification{Findings: []string{}}
	var err error
	switch {
	case len(args) > 0:
		err = a.verifyFiles(args, v)
	case data != "":
		err = a.verifyData(ctx, data, v)
	case mirror != "":
		err = a.verifyMirror(ctx, mirror, v)
	case a.server != "":
		err = a.verifyServer(ctx, v)
	default:
		err = errors.New("verify what? pass --server URL, --mirror DIR, --data DIR or a FILE")
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
			fmt.Fprintf(w, "%s  %s: %s in %d entries\n", colour(w, "31", "NOT VERIFIED"), v.Origin, count(len(v.Findings), "finding"), v.Entries)
			return
		}
		for _, p := range v.Proven {
			fmt.Fprintln(w, "proven: "+printable(p))
		}
		fmt.Fprintf(w, "%s  %s: %d entries, root %s", colour(w, "32", "VERIFIED"), v.Origin, v.Entries, v.Root)
		if v.Erased > 0 {
			fmt.Fprintf(w, ", %d details erased", v.Erased)
		}
		if v.Withheld > 0 {
			fmt.Fprintf(w, ", %d objects withheld", v.Withheld)
		}
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
	if c.Kind() == ledger.OperatorsChanged {
		line += ", says who may sign"
	}
	if reason, ok := ec.Detail["reason"].(string); ok {
		line += fmt.Sprintf(", reason %q", clipText(reason, 60))
	}
	v.Proven = append(v.Proven, oneLine(line))
}

func (v *verification) tree(t ledger.Tree) {
	v.Size, v.Root = t.Size, ledger.EncodeRoot(t)
}

// verifyFiles checks each file, and the .json files of each directory.
func (a *app) verifyFiles(paths []string, v *verification) error {
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			if files, err = filepath.Glob(filepath.Join(path, "*.json")); err != nil || len(files) == 0 {
				return fmt.Errorf("%s has no .json files, as changes proof and history --proofs write", path)
			}
		}
		for _, f := range files {
			if err := a.verifyFile(f, v); err != nil {
				return err
			}
		}
	}
	slices.Sort(v.Proven)
	v.Proven = slices.Compact(v.Proven)
	return nil
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
	v.Origin, trust = trust.Origin, trust.Past()
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
	v.Entries += int64(len(e.Changes))
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
	if errors.Is(err, store.ErrLocked) {
		return &api.Error{Detail: data + " is in use: a server is running on it", Hint: "stop it, or verify without its files: --server URL, or --mirror DIR"}
	}
	if err != nil {
		v.Origin = trust.Origin
		v.find("%v", err)
		return nil
	}
	defer st.Close()
	count, stop := a.counting("verifying", "entries")
	report, err := st.Verify(ctx, count)
	stop()
	if err != nil {
		return err
	}
	v.Origin, v.Entries, v.Details, v.Erased = trust.Origin, report.Tree.Size, report.Details, report.Erased
	v.tree(report.Tree)
	for _, f := range report.Findings {
		v.find("%s", strings.TrimPrefix(f.String(), f.Where+": "+f.Where+": "))
	}
	for i := range st.Snapshot().Tree.Size {
		if c, err := st.Change(i); err == nil {
			v.note(i, c)
		}
	}
	v.checkTrustFile(data, trust)
	return v.checkRows(st)
}

// checkTrustFile holds the trust file that serve would read to the one that
// this verification believes.
func (v *verification) checkTrustFile(data string, trust *ledger.Trust) {
	have, err := dataTrust(data)
	if err == nil && have.Digest != trust.Digest {
		_, newer := trust.Follow(have.File())
		_, older := have.Follow(trust.File())
		if newer != nil && older != nil {
			err = fmt.Errorf("is version %d of another trust file than the one that was passed: %w", have.Version, newer)
		}
	}
	if err != nil {
		v.find("%s: %v", trustFile, err)
	}
}

// checkRows holds what the server shows to whom to the log.
func (v *verification) checkRows(st *store.Store) error {
	var log []server.Activated
	for _, a := range v.activations {
		log = append(log, server.Activated{Service: a.data.Service, Set: a.data.Set.Digest})
	}
	findings, err := server.CheckRows(st, log)
	v.Findings = append(v.Findings, findings...)
	return err
}

// verifyServer reads the whole log of a server.
func (a *app) verifyServer(ctx context.Context, v *verification) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	trust, err := a.needTrust(ctx, c)
	if err != nil {
		return err
	}
	return a.verifyLog(ctx, c.log, trust, v)
}

// verifyMirror reads a mirror's directory, or a web server that shows one.
func (a *app) verifyMirror(ctx context.Context, where string, v *verification) error {
	src, err := a.logSource(where)
	if err != nil {
		return err
	}
	trust, err := a.ownTrust("which trust file? pass --trust FILE or set SEALSTONE_TRUST; a mirror's own proves nothing")
	if err != nil {
		return err
	}
	return a.verifyLog(ctx, src, trust, v)
}

// logSource reads a log from a mirror's directory, or over HTTP.
func (a *app) logSource(where string) (mirror.Source, error) {
	if !strings.Contains(where, "://") {
		if st, err := os.Stat(where); err != nil || !st.IsDir() {
			return nil, fmt.Errorf("%s is no directory of a mirror: sealstone mirror URL %s makes one", where, where)
		}
		return mirror.Dir(where), nil
	}
	c, err := a.clientFor(where)
	if err != nil {
		return nil, err
	}
	return c.log, nil
}

// log reads a file of a server's log, as a [mirror.Source].
func (c *client) log(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, "/log/"+path, nil)
}

// verifyLog reads a log as any C2SP client does, every tile and every entry, and
// replays it from entry 0.
func (a *app) verifyLog(ctx context.Context, src mirror.Source, trust *ledger.Trust, v *verification) error {
	v.Origin = trust.Origin
	l, err := mirror.Open(ctx, src, trust)
	if errors.Is(err, ledger.ErrCheckpoint) {
		v.find("%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	v.tree(l.Tree)
	r := ledger.NewReplay(trust)
	count, stop := a.counting("verifying", "entries")
	defer stop()
	d := detailCheck{v: v, src: src, erased: map[int64]bool{}}
	r.Each = func(i int64, c *ledger.Change) {
		v.note(i, c)
		d.note(i, c)
	}
	for n := range l.Bundles() {
		leaves, err := l.Entries(ctx, n)
		if err == nil {
			err = r.Add(leaves...)
		}
		v.Entries = r.State.Size
		if isFinding(err) {
			v.find("%v", err)
			return nil
		}
		if err != nil {
			return err
		}
		count(r.State.Size, l.Size)
	}
	if r.Tree() != l.Tree {
		v.find("the entries hash to another root than the signed checkpoint's")
	}
	return d.check(ctx, l.Bundles())
}

// detailCheck compares the details that a source shows with the leaves that name
// them. A source may show none; one that shows some must show all that are not
// erased.
type detailCheck struct {
	v       *verification
	src     mirror.Source
	named   []detailName
	erased  map[int64]bool
	missing []int64
}

type detailName struct {
	index int64
	name  api.Digest
}

func (d *detailCheck) note(i int64, c *ledger.Change) {
	if c.Kind() == ledger.DetailErased {
		d.erased[c.Data.Index] = true
	}
	if c.Data.Detail != "" {
		d.named = append(d.named, detailName{i, c.Data.Detail})
	}
}

// check comes last: an erasure is a later entry than what it erases.
func (d *detailCheck) check(ctx context.Context, bundles int64) error {
	shows := false
	for n := range bundles {
		lines, err := mirror.Details(ctx, d.src, n)
		if errors.Is(err, mirror.ErrDamaged) {
			d.v.find("%v", err)
			return nil
		}
		if err != nil {
			return err
		}
		shows = shows || len(lines) > 0
		d.bundle(n, lines)
	}
	for _, i := range d.missing {
		if shows {
			d.v.find("entry %d: its detail is missing, and no erasure says why", i)
		}
	}
	return nil
}

func (d *detailCheck) bundle(n int64, lines []ledger.DetailLine) {
	shown := map[int64]ledger.DetailLine{}
	for _, l := range lines {
		shown[l.Index] = l
	}
	for ; len(d.named) > 0 && d.named[0].index < (n+1)*256; d.named = d.named[1:] {
		want := d.named[0]
		line, ok := shown[want.index]
		_, right := line.Of(want.name)
		switch {
		case d.erased[want.index] && ok:
			d.v.find("entry %d: its detail is erased by the log, and still shown", want.index)
		case d.erased[want.index]:
			d.v.Erased++
		case !ok:
			d.missing = append(d.missing, want.index)
		case !right:
			d.v.find("entry %d: the detail is not the one that the leaf names", want.index)
		default:
			d.v.Details++
		}
	}
}

// isFinding tells what a log got wrong from what went wrong on the way to it.
func isFinding(err error) bool {
	for _, kind := range []error{mirror.ErrDamaged, ledger.ErrChange, ledger.ErrSignature, ledger.ErrFold, fs.ErrNotExist} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return api.CodeOf(err) == api.CodeNotFound
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
	count, stop := a.counting("verifying", "sets")
	defer stop()
	for i, act := range v.activations {
		count(int64(i), int64(len(v.activations)))
		rel := act.data.Release
		built, err := b.Rebuild(ctx, rel.Commit, act.data.Service, act.data.Scope)
		switch {
		case ctx.Err() != nil:
			return
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
