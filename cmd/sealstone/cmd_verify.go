package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/server"
)

// verifyOptions are the flags of verify.
type verifyOptions struct {
	data, mirror string
	anchor       string
	noAnchor     bool // --anchor ''
	rebuild      bool
	repo         string
}

func newVerify(a *app) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify (--server URL | --mirror DIR|URL | --data DIR [--anchor FILE] | FILE...) [--trust FILE]",
		Short: "Verify a log, a data directory, or a single proof",
		Long: "Verify everything a log says from entry 0: hashes, signatures, permissions, chains\n" +
			"and the fold. --server reads it over /log/, --mirror from a copy that sealstone mirror\n" +
			"made or from a web server that shows one, --data from a stopped server's files, or a\n" +
			"copy of them; FILE is what changes proof wrote, or a directory of it, and needs no\n" +
			"network. With --rebuild each set that the log names is built again from Git and\n" +
			"compared. Exit 3 on any finding.",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			o.noAnchor = c.Flags().Changed("anchor") && o.anchor == ""
			if err := o.check(args, c.Flags().Changed("server"), c.Flags().Changed("anchor")); err != nil {
				return err
			}
			v, err := a.verify(c.Context(), o, args)
			if err == nil && o.rebuild {
				err = a.rebuild(c.Context(), o.repo, v)
			}
			if err != nil {
				return err
			}
			if err := c.Context().Err(); err != nil {
				return err // half a verification is none
			}
			return a.verdict(v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.data, "data", "", "data directory of a server that is not running, or a copy")
	f.StringVar(&o.anchor, "anchor", "", "with --data: file with the last published checkpoint (default DATA/anchor); '' for a copy that was kept without one")
	f.StringVar(&o.mirror, "mirror", "", "directory that sealstone mirror made, or the URL of a web server that shows it")
	f.BoolVar(&o.rebuild, "rebuild", false, "build every set that the log names from Git and compare digests")
	f.StringVar(&o.repo, "repo", "", "repository for --rebuild")
	return cmd
}

// check refuses what would be passed over in silence.
func (o *verifyOptions) check(files []string, server, anchor bool) error {
	asked := 0
	for _, given := range []bool{len(files) > 0, o.data != "", o.mirror != "", server} {
		if given {
			asked++
		}
	}
	switch {
	case asked > 1:
		return errors.New("verify one thing at a time: --server URL, --mirror DIR, --data DIR or FILEs")
	case anchor && o.data == "":
		return errors.New("--anchor is for --data DIR: other copies are held to their checkpoint")
	case o.rebuild && len(files) > 0:
		return errors.New("--rebuild needs a whole log: --server URL, --mirror DIR or --data DIR")
	case o.rebuild && o.repo == "":
		return errors.New("--rebuild: which repository? pass --repo URL")
	}
	return nil
}

// verification is what verify found.
type verification struct {
	Origin   string        `json:"origin"`
	Size     int64         `json:"size"`
	Root     string        `json:"root"`
	Entries  int64         `json:"entries"`            // checked
	Details  int64         `json:"details,omitempty"`  // that are what their leaf names
	Absent   int64         `json:"absent,omitempty"`   // details that are not shown here, as none is
	Erased   int64         `json:"erased,omitempty"`   // details that the log says are gone
	Withheld int64         `json:"withheld,omitempty"` // objects that it says nobody gets any more
	Rebuilt  int           `json:"rebuilt,omitempty"`
	Unproven int           `json:"unproven,omitempty"` // of --data: rows of which nothing says any more whether they are right
	NoClone  bool          `json:"noClone,omitempty"`  // of --data: no commits to compare rows with
	Proven   []string      `json:"proven,omitempty"`   // of a FILE: what it proves, in words
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

func (a *app) verify(ctx context.Context, o verifyOptions, args []string) (*verification, error) {
	start := time.Now()
	v := &verification{Findings: []string{}}
	var err error
	switch {
	case len(args) > 0:
		err = a.verifyFiles(args, v)
	case o.data != "":
		err = a.verifyData(ctx, o, v)
	case o.mirror != "":
		err = a.verifyMirror(ctx, o.mirror, v)
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
		if v.Absent > 0 {
			fmt.Fprintf(w, ", %d details not shown", v.Absent)
		}
		if v.Erased > 0 {
			fmt.Fprintf(w, ", %s erased", count(int(v.Erased), "detail"))
		}
		if v.Withheld > 0 {
			fmt.Fprintf(w, ", %s withheld", count(int(v.Withheld), "object"))
		}
		if v.Rebuilt > 0 {
			fmt.Fprintf(w, ", %s rebuilt", count(v.Rebuilt, "set"))
		}
		if v.Unproven > 0 {
			fmt.Fprintf(w, ", %s not provable: what they come from is erased or gone", count(v.Unproven, "row"))
		}
		if v.NoClone {
			fmt.Fprint(w, ", texts of safe modes not compared: no clone is here")
		}
		fmt.Fprintf(w, " (%s)\n", span(v.Took))
	})
	if err == nil && len(v.Findings) > 0 {
		return exitCode(exitProof)
	}
	return err
}

// prove says in words what a proven change is, and whose key verified it: the
// key id beside a signature is anybody's word.
func (v *verification) prove(ec ledger.EvidenceChange, p *provenLog) {
	c := p.changes[ec.Index]
	if c == nil {
		return // a finding by now
	}
	line := fmt.Sprintf("entry %d: %s %s %s, recorded %s", ec.Index, c.Kind(), c.Subject, what(&c.Data.Fields), c.RecordedTime)
	if by := p.signer(ec.Index); by.Key != "" {
		line += fmt.Sprintf(", signed by %s with %s", by.Operator, by.Key)
	}
	if c.Kind() == ledger.OperatorsChanged {
		line += ", says who may sign"
	}
	if by := p.erased[ec.Index]; by != 0 {
		line += fmt.Sprintf(", its detail erased by entry %d", by)
	} else if c.Data.Detail != "" && ec.Detail == nil {
		line += ", without its detail: erased, or taken out of the file"
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
		return fmt.Errorf("%w: %s is not evidence: it has no checkpoint, or proves no change; sealstone changes proof writes one", errProof, path)
	}
	v.Origin = trust.Origin
	p, err := openEvidence(trust.Past(), &e)
	if p == nil {
		v.find("%v", err)
		return nil
	}
	v.tree(p.tree)
	if err != nil {
		v.find("%v", err)
	}
	v.Entries += int64(len(e.Changes))
	for _, ec := range e.Changes {
		v.prove(ec, p)
	}
	return nil
}

// verifyData checks the files of a stopped server, or of a copy.
func (a *app) verifyData(ctx context.Context, o verifyOptions, v *verification) error {
	data := o.data
	trust, err := a.trustOf(data)
	if err != nil {
		return err
	}
	st, err := store.Open(store.Config{Dir: data, Anchor: o.anchor, NoAnchor: o.noAnchor, Trust: trust, ReadOnly: true})
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
	if o.noAnchor {
		fmt.Fprintln(a.err, "note: without an anchor nothing shows how many entries were published")
	}
	for _, f := range report.Findings {
		v.find("%s", strings.TrimPrefix(f.String(), f.Where+": "+f.Where+": "))
	}
	for i := range st.Snapshot().Tree.Size {
		if c, err := st.Change(i); err == nil {
			v.note(i, c)
		}
	}
	v.checkTrustFile(data, trust)
	return v.checkRows(ctx, st, o)
}

// trustOf is --trust, or the newer version of the same log that a data directory
// holds, where the roots lead there; without --trust the directory's own.
func (a *app) trustOf(data string) (*ledger.Trust, error) {
	trust, err := a.loadTrust()
	if err != nil {
		return nil, err
	}
	have, err := dataTrust(data)
	if trust == nil {
		return have, err
	}
	if err != nil { // checkTrustFile says so
		return trust, nil
	}
	newer, err := trust.Follow(have.File())
	if err != nil || newer.Origin != trust.Origin {
		return trust, nil
	}
	a.noteNewer(data, trust, newer)
	return newer, nil
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

// checkRows holds what the server answers from beside the log to the log, the
// objects and the commits in its own clone, or in --repo.
func (v *verification) checkRows(ctx context.Context, st *store.Store, o verifyOptions) error {
	var log []ledger.Data
	for _, a := range v.activations {
		log = append(log, a.data)
	}
	repo, err := bundler.OpenRepo(filepath.Join(o.data, gitDir))
	if err != nil && o.repo != "" {
		repo, err = bundler.OpenRepo(o.repo)
	}
	if err != nil {
		repo, v.NoClone = nil, true
	}
	r, err := server.CheckRows(ctx, st, log, repo)
	if errors.Is(err, store.ErrStructure) {
		v.find("rows: not compared: %v", err)
		return nil
	}
	if err == nil {
		v.Findings, v.Unproven = append(v.Findings, r.Findings...), r.Unproven
	}
	return err
}
