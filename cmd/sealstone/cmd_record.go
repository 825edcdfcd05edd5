package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// fact is what record and erase sign.
type fact struct {
	kind      ledger.Kind
	target    api.Target
	sets      []string // name=value
	note      string
	when, out string
}

// digestFlags are the named forms that take a digest, or a file that has one.
var digestFlags = map[string]string{"artifact": "artifact", "image": "image", "base-image": "baseImage", "sbom": "sbom", "plan": "plan"}

func newChangesRecord(a *app) *cobra.Command {
	var o fact
	var service, scope string
	named := map[string]*string{}
	cmd := &cobra.Command{
		Use:   "record KIND --service S",
		Short: "Record a fact: a deploy, a rotated secret, a changed dependency, a note",
		Long: "Record a fact as a signed statement. KIND is one of:\n  " + strings.Join(recordKinds(), "\n  ") + "\n" +
			"docs/formats.md lists the members of each; --set and its named forms give them.\n" +
			"A digest may also be the path of a file, whose SHA-256 is taken. With --out the\n" +
			"statement is signed for --trust and written, to be sent by anybody: no server is\n" +
			"asked. Facts may be sent for 30 days.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.kind, o.target = ledger.Kind(args[0]), api.Target{Service: service, Scope: api.Scope(scope)}
			if !slices.Contains(recordKinds(), args[0]) {
				return fmt.Errorf("unknown kind %q: write one of %s", o.kind, strings.Join(recordKinds(), ", "))
			}
			if o.kind == ledger.NoteAdded && o.note == "" {
				return errors.New("a note needs words: pass --note TEXT")
			}
			for name, v := range named {
				if *v == "" {
					continue
				}
				member, value, err := namedSet(name, *v)
				if err != nil {
					return err
				}
				o.sets = append(o.sets, member+"="+value)
			}
			return a.recordFact(cmd.Context(), &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&service, "service", "", "service that it is about")
	f.StringVar(&scope, "scope", "", "scope that it is about")
	f.StringVar(&o.note, "note", "", "words for people; go into the detail")
	f.StringVar(&o.when, "time", "", "when it happened: RFC 3339, or how long ago, such as 36h (default: now)")
	f.StringVar(&o.out, "out", "", "write the signed statement to this file instead of sending it")
	f.StringArrayVar(&o.sets, "set", nil, "a member of the kind, name=value; repeat for more")
	for name, help := range map[string]string{"artifact": "digest of the artifact, or its file", "image": "digest of the image", "base-image": "digest of the base image",
		"sbom": "digest of the SBOM, or its file", "version": "version", "name": "name, never a value", "purl": "package URL", "plan": "digest of the plan, or its file"} {
		named[name] = f.String(name, "", help)
	}
	return cmd
}

// namedSet is the member that a named form sets.
func namedSet(name, value string) (member, set string, err error) {
	member, isDigest := digestFlags[name]
	if !isDigest {
		return name, value, nil
	}
	if strings.HasPrefix(value, "sha256:") {
		return member, value, nil
	}
	f, err := os.Open(value)
	if err != nil {
		return "", "", fmt.Errorf("--%s: write sha256:<64 hex digits>, or the path of a file: %w", name, err)
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return member, "sha256:" + hex.EncodeToString(h.Sum(nil)), err
}

// recordKinds are the facts that people record; the rest has commands of its own.
func recordKinds() []string {
	var out []string
	for _, k := range ledger.Kinds() {
		if k.Do() == "record" || k == ledger.SafeModeDrilled {
			out = append(out, string(k))
		}
	}
	return out
}

func (a *app) recordFact(ctx context.Context, o *fact) error {
	if o.out != "" {
		return a.writeFact(ctx, o)
	}
	key, c, origin, err := a.signing(ctx)
	if err != nil {
		return err
	}
	body, err := o.sign(key, origin, serverTime(ctx, c))
	if err != nil {
		return err
	}
	r, err := c.submitOnce(ctx, body)
	if err != nil {
		return err
	}
	if o.kind.Do() == "record" {
		a.notePlace(ctx, c, o.target)
	}
	return a.printReceipts([]api.Receipt{*r})
}

// submitOnce keeps a statement that the server could not store: it may be in the
// log all the same, and only the same bytes count once.
func (c *client) submitOnce(ctx context.Context, body []byte) (*api.Receipt, error) {
	r, err := c.submit(ctx, body)
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != api.CodeStorage {
		return r, err
	}
	f, failed := os.CreateTemp("", "sealstone-*.dsse")
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	_, failed = f.Write(append(body, '\n'))
	if failed = errors.Join(failed, f.Close()); failed != nil {
		return nil, errors.Join(err, failed)
	}
	e.Hint = "when the server has room: sealstone changes send " + f.Name() + "; however often it is sent, it counts once"
	return nil, err
}

// notePlace says when a server knows nothing of the place that a fact is about.
// It is recorded all the same: facts are about the world.
func (a *app) notePlace(ctx context.Context, c *client, t api.Target) {
	if t.Service == "" {
		return
	}
	var err error
	if t.Scope != "" {
		_, err = c.safeModes(ctx, t)
	} else if list, failed := c.services(ctx); failed == nil && !slices.Contains(serviceNames(activated(list)), t.Service) {
		err = &api.Error{Code: api.CodeNotActivated, Detail: "nothing is activated for " + t.Service}
	}
	if code := api.CodeOf(err); code == api.CodeNotActivated || code == api.CodeUnprocessable {
		fmt.Fprintf(a.err, "note: recorded all the same, but is %s right? %v\n", t, c.namingPlaces(ctx, err, t))
	}
}

// writeFact signs without sending.
func (a *app) writeFact(ctx context.Context, o *fact) error {
	key, err := a.signer()
	if err != nil {
		return err
	}
	origin, err := a.origin(ctx, nil)
	if err != nil {
		return err
	}
	body, err := o.sign(key, origin, time.Now())
	if err != nil {
		return err
	}
	if err := writeOut(o.out, append(body, '\n')); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "wrote %s: send it with sealstone changes send %s, or curl --data-binary @%s SERVER/v1/changes\n", o.out, o.out, o.out)
	return nil
}

func (o *fact) sign(key ledger.Signer, origin string, now time.Time) ([]byte, error) {
	at, err := o.at(now)
	if err != nil {
		return nil, err
	}
	st := newStatement(origin, o.kind, o.target, at)
	if err := setFields(st, o.sets); err != nil {
		return nil, err
	}
	return signSubmission(st, o.note, key)
}

func (o *fact) at(now time.Time) (time.Time, error) {
	if o.when == "" {
		return now, nil
	}
	if ago, err := time.ParseDuration(o.when); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := parseTime("--time", o.when)
	if err != nil {
		err = fmt.Errorf("%w, or how long ago, such as 36h", err)
	}
	return at, err
}

func setFields(st *ledger.Statement, sets []string) error {
	fields := map[string]any{}
	for _, s := range sets {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("--set %q: write name=value", s)
		}
		if members := st.Kind.Members(); !slices.Contains(members, name) {
			return fmt.Errorf("%s has no member %.40q: it has %s", st.Kind, name, cmp.Or(strings.Join(members, ", "), "none, words go into --note"))
		}
		fields[name] = value
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && (name == "index" || name == "ttl") {
			fields[name] = n
		}
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &st.Fields); err != nil {
		return fmt.Errorf("--set: %w", err)
	}
	return nil
}

func newChangesErase(a *app) *cobra.Command {
	o := fact{kind: ledger.DetailErased}
	var object string
	cmd := &cobra.Command{
		Use:   "erase (INDEX | --object DIGEST [--service S]) [--note WHY]",
		Short: "Erase the detail of a change, or withhold an object; proofs stay valid",
		Long: "Erase the detail of a change: names and words, which lie outside the log. Or\n" +
			"withhold an object that leaked: a bundle, a document, a set that nothing in force\n" +
			"is made of. Servers answer 410 for it from then on, and don't build it again; who\n" +
			"has it already keeps it. The bundles of a set and the documents of a bundle are\n" +
			"objects of their own, and served on: the command lists them. Proofs stay valid,\n" +
			"and verify says what is gone.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (object != "") {
				return errors.New("erase what? name an INDEX, or an object with --object")
			}
			if object != "" {
				o.kind, o.sets = ledger.ObjectErased, []string{"object=" + object}
				parts := a.partsOf(cmd.Context(), o.target.Service, api.Digest(object))
				if err := a.recordFact(cmd.Context(), &o); err != nil {
					return err
				}
				a.tellServed(cmd.Context(), o.target, parts)
				return nil
			}
			index := strings.TrimPrefix(args[0], "log:")
			var r api.Record
			if err := a.get(cmd.Context(), "/v1/changes/"+url.PathEscape(index), nil, &r); err != nil {
				return err
			}
			d := eventOf(r).Data
			o.target, o.sets = api.Target{Service: d.Service, Scope: d.Scope}, []string{"index=" + index}
			return a.recordFact(cmd.Context(), &o)
		}}
	f := cmd.Flags()
	f.StringVar(&object, "object", "", "digest of a set, bundle or document to withhold")
	f.StringVar(&o.target.Service, "service", "", "with --object: the service that named it; without, all services")
	f.StringVar((*string)(&o.target.Scope), "scope", "", "with --object: the scope that your grant is for")
	f.StringVar(&o.note, "note", "", "words for people; go into the erasure's own detail")
	return cmd
}

// serverTime stamps statements by the server's clock where it can be asked.
func serverTime(ctx context.Context, c *client) time.Time {
	var answer api.SafeModes
	if err := c.get(ctx, "/v1/safe-modes", nil, &answer); err == nil {
		if t, err := api.ParseTime(answer.Time); err == nil {
			return t
		}
	}
	return time.Now()
}

func newChangesSend(a *app) *cobra.Command {
	return &cobra.Command{Use: "send FILE...", Short: "Send statements that were signed elsewhere, in the order in which they follow each other", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.sendFiles(cmd.Context(), args) }}
}

// sendFiles goes on after an error, as a safe mode for many services does.
func (a *app) sendFiles(ctx context.Context, paths []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	files, err := a.signedFiles(paths)
	if err != nil {
		return err
	}
	var receipts []api.Receipt
	for _, f := range files {
		r, failed := c.submit(ctx, f.body)
		if failed == nil {
			receipts = append(receipts, *r)
		} else if len(files) > 1 {
			failed = fmt.Errorf("%s: %w", f.path, failed)
		}
		err = errors.Join(err, failed)
	}
	if len(receipts) > 0 {
		err = errors.Join(err, a.printReceipts(receipts))
	}
	if err == nil && slices.ContainsFunc(receipts, func(r api.Receipt) bool { return r.Behind != "" }) {
		return exitCode(exitFinding)
	}
	return err
}

// signedFile is what a command wrote with --out.
type signedFile struct {
	path  string
	body  []byte
	after int64
	time  string
}

// signedFiles reads them in the order in which a chain takes them: by after, then
// time. What doesn't read as a statement comes first: the server says why.
func (a *app) signedFiles(paths []string) (list []signedFile, err error) {
	for _, path := range paths {
		f := signedFile{path: path}
		if f.body, err = a.readFile(path); err != nil {
			return nil, err
		}
		if len(f.body) > ledger.MaxEnvelope {
			return nil, fmt.Errorf("%s: a statement is at most 128 KiB", path)
		}
		sub := api.Submission{}
		if json.Unmarshal(f.body, &sub) != nil || sub.Statement == nil {
			sub.Statement = bytes.TrimSpace(f.body)
		}
		if st, err := ledger.ParseStatement(sub.Statement); err == nil {
			if f.time = st.Time; st.After != nil {
				f.after = *st.After
			}
		}
		list = append(list, f)
	}
	slices.SortStableFunc(list, func(x, y signedFile) int {
		return cmp.Or(cmp.Compare(x.after, y.after), cmp.Compare(x.time, y.time))
	})
	return list, nil
}
