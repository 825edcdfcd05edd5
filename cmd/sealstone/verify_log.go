package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/mirror"
	"github.com/sealstone/sealstone/ledger"
)

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
	l, err := mirror.Open(ctx, c.log, trust)
	return a.verifyLog(ctx, l, err, trust, v)
}

// verifyMirror reads a mirror's directory, or a web server that shows one.
func (a *app) verifyMirror(ctx context.Context, where string, v *verification) error {
	trust, err := a.ownTrust("which trust file? pass --trust FILE or set SEALSTONE_TRUST; a mirror's own proves nothing")
	if err != nil {
		return err
	}
	l, trust, err := a.openCopy(ctx, where, trust)
	return a.verifyLog(ctx, l, err, trust, v)
}

// openCopy opens a mirror with the versions of the trust file that it was made
// with, where the roots lead there. A copy is of the past: where a log key was
// replaced since, the older one counts, and is said to.
func (a *app) openCopy(ctx context.Context, where string, trust *ledger.Trust) (*mirror.Log, *ledger.Trust, error) {
	src, err := a.logSource(where)
	if err != nil {
		return nil, trust, err
	}
	if !strings.Contains(where, "://") {
		newer, err := mirror.Newest(where, trust)
		if err != nil {
			return nil, trust, err
		}
		a.noteNewer("the mirror", trust, newer)
		trust = newer
	}
	l, err := mirror.Open(ctx, src, trust)
	if errors.Is(err, ledger.ErrCheckpoint) {
		if old, e := mirror.Open(ctx, src, trust.Past()); e == nil {
			fmt.Fprintf(a.err, "note: the mirror ends at entry %d, before version %d of the trust file: a key that was replaced since signed its checkpoint\n", old.Size-1, trust.Version)
			return old, trust, nil
		}
	}
	return l, trust, err
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
// replays it from entry 0. err is what opening the log said.
func (a *app) verifyLog(ctx context.Context, l *mirror.Log, err error, trust *ledger.Trust, v *verification) error {
	v.Origin = trust.Origin
	if errors.Is(err, ledger.ErrCheckpoint) || errors.Is(err, ledger.ErrTrust) || errors.Is(err, fs.ErrNotExist) {
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
	d := detailCheck{v: v, log: l, erased: map[int64]bool{}}
	r.Each = func(i int64, c *ledger.Change) {
		v.note(i, c)
		d.note(i, c)
	}
	for n := range l.Pages() {
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
	return d.check(ctx, l.Pages())
}

// detailCheck compares the details that a source shows with the leaves that name
// them. A source may show none; one that shows some must show all that are not
// erased.
type detailCheck struct {
	v       *verification
	log     *mirror.Log
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
func (d *detailCheck) check(ctx context.Context, pages int64) error {
	shows := false
	for n := range pages {
		lines, err := d.log.Details(ctx, n)
		if errors.Is(err, mirror.ErrDamaged) {
			d.v.find("%v", err)
			return nil
		}
		if err != nil {
			return err
		}
		shows = shows || len(lines) > 0
		d.page(n, lines)
	}
	if !shows {
		d.v.Absent = int64(len(d.missing))
		return nil
	}
	for _, i := range d.missing {
		d.v.find("entry %d: its detail is missing, and no erasure says why", i)
	}
	return nil
}

func (d *detailCheck) page(n int64, lines []ledger.DetailLine) {
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
