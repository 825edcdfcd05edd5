package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// cache keeps exact bytes and their evidence across restarts. It may be lost at
// any time, and nothing in it is believed for being there: what is read goes
// through the same checks as what a server sends. Its errors are warnings. All
// methods do nothing on a nil cache.
type cache struct {
	db     *kv.DB
	log    *slog.Logger
	prefix atomic.Pointer[string] // origin and target: two of them never mix
}

// Records of the cache. Each key starts with the origin, and all but those of
// trust files with the target as well.
const (
	bucketTrust    = "trust"    // trust files by version
	bucketEvidence = "evidence" // recordServed: of the staged set; recordSeen: the newest, when its set could not be staged
	bucketSets     = "sets"     // objects of the last sets, newest first
	bucketHeld     = "held"     // pending statements that are obeyed
	bucketRefusals = "refusals"

	recordServed = "served"
	recordSeen   = "seen"
	firstUseMark = "first-use"
)

// maxSlots is how many processes may share a cache folder.
const maxSlots = 16

// lockWait is how long a slot's lock is waited for: enough for a predecessor
// that is just closing.
const lockWait = 50 * time.Millisecond

// openCache takes the first slot that no other process holds. A damaged file is
// set aside, never repaired: what it held can be fetched again.
func openCache(dir string, log *slog.Logger) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for slot := range maxSlots {
		path := filepath.Join(dir, strconv.Itoa(slot)+".db")
		db, err := kv.Open(path, kv.Options{Timeout: lockWait})
		if errors.Is(err, kv.ErrLocked) {
			continue
		}
		if kv.Damaged(err) {
			log.Warn("sealstone: the cache is damaged and starts anew: this process remembers nothing that was proven before",
				slog.String("path", path), slog.Any("error", err))
			if err = os.Rename(path, path+".damaged"); err == nil {
				db, err = kv.Open(path, kv.Options{Timeout: lockWait})
			}
		}
		if err != nil {
			return nil, err
		}
		return &cache{db: db, log: log}, nil
	}
	return nil, fmt.Errorf("all %d slots of %s are taken", maxSlots, dir)
}

// warn is how every failure of the cache ends.
func (c *cache) warn(what string, err error) {
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		c.log.Warn("sealstone: cache: "+what, slog.String("path", c.db.Path()), slog.Any("error", err))
	}
}

func (c *cache) path() string {
	if c == nil {
		return ""
	}
	return c.db.Path()
}

func (c *cache) close() {
	if c != nil {
		c.warn("close", c.db.Close())
	}
}

// use names the origin and target whose records are read and written.
func (c *cache) use(origin string, t api.Target) {
	if c != nil {
		prefix := prefixOf(origin, t)
		c.prefix.Store(&prefix)
	}
}

func prefixOf(origin string, t api.Target) string { return origin + " " + t.String() + " " }

func (c *cache) key(name string) string {
	if p := c.prefix.Load(); p != nil {
		return *p + name
	}
	return name // nothing is trusted yet, so nothing was proven
}

func (c *cache) get(bucket, key string, into any) {
	if c != nil {
		c.warn("read "+bucket, c.db.View(func(tx *kv.Tx) error { return tx.GetJSON(bucket, c.key(key), into) }))
	}
}

func (c *cache) put(bucket, key string, v any) {
	if c != nil {
		c.warn("write "+bucket, c.db.Update(func(tx *kv.Tx) error { return tx.PutJSON(bucket, c.key(key), v) }))
	}
}

// trustFiles lists the trust files that were filed under a name, oldest first.
func (c *cache) trustFiles(name string) (list [][]byte) {
	if c == nil {
		return nil
	}
	c.warn("read trust", c.db.View(func(tx *kv.Tx) error {
		for _, raw := range tx.All(bucketTrust, name+" ") {
			list = append(list, raw)
		}
		return nil
	}))
	return list
}

// putTrust files the versions above from under names: that of the origin from which a start
// gets to it, which isn't its own when it succeeds another log; or that of first
// use, so that no later start takes it for one that was given.
func (c *cache) putTrust(t *ledger.Trust, from int, names []string) {
	if c == nil {
		return
	}
	for _, v := range t.Versions() {
		for _, name := range names {
			if v.Version > from {
				c.warn("write trust", c.db.Put(bucketTrust, fmt.Sprintf("%s %08d", name, v.Version), v.Raw))
			}
		}
	}
}

// evidence reads a record of any log; nil when there is none.
func (c *cache) evidence(origin string, t api.Target, record string) (e *ledger.Evidence) {
	if c == nil {
		return nil
	}
	c.warn("read "+bucketEvidence, c.db.View(func(tx *kv.Tx) error { return tx.GetJSON(bucketEvidence, prefixOf(origin, t)+record, &e) }))
	return e
}

func (c *cache) object(d api.Digest) ([]byte, bool) {
	if c == nil {
		return nil, false
	}
	b, err := c.db.Object(d)
	c.warn("read object", err)
	return b, err == nil
}

func (c *cache) putObjects(objects map[api.Digest][]byte) {
	if c != nil {
		c.warn("write objects", c.db.PutObjects(maps.All(objects)))
	}
}

// putEvidence keeps evidence that stands alone. Of a set that could not be
// staged only the memory is kept, so that a restart still serves the set before
// but believes nothing older.
func (c *cache) putEvidence(e *ledger.Evidence, served bool) {
	if !served {
		c.put(bucketEvidence, recordSeen, e)
		return
	}
	c.put(bucketEvidence, recordServed, e)
	c.put(bucketEvidence, recordSeen, nil)
}

// retain keeps the objects of the last two sets, of every target that uses the
// file, and drops all others.
func (c *cache) retain(st *staged) {
	if c == nil {
		return
	}
	var sets [][]api.Digest
	c.get(bucketSets, "", &sets)
	sets = append([][]api.Digest{slices.Sorted(maps.Keys(st.objects))}, sets...)
	c.put(bucketSets, "", sets[:min(len(sets), 2)])
	keep := map[api.Digest]bool{}
	err := c.db.View(func(tx *kv.Tx) error {
		for _, raw := range tx.All(bucketSets, "") {
			var sets [][]api.Digest
			if err := json.Unmarshal(raw, &sets); err != nil {
				return err
			}
			for _, d := range slices.Concat(sets...) {
				keep[d] = true
			}
		}
		return nil
	})
	if err == nil {
		_, err = c.db.DeleteObjects(func(d api.Digest) bool { return keep[d] })
	}
	c.warn("drop old objects", err)
}

func (c *cache) putHeld(list []*held) {
	raw := make([][]byte, 0, len(list))
	for _, h := range list {
		raw = append(raw, h.Raw)
	}
	c.put(bucketHeld, "", raw)
}

func (c *cache) held() map[api.Digest]*held {
	var list [][]byte
	c.get(bucketHeld, "", &list)
	out := map[api.Digest]*held{}
	for _, raw := range list {
		if s, err := ledger.ParseStatement(raw); err == nil && s.After != nil {
			out[api.DigestOf(raw)] = &held{s, "cache"}
		}
	}
	return out
}

func (c *cache) putRefusals(list []Refusal) { c.put(bucketRefusals, "", list) }

func (c *cache) refusals() (list []Refusal) {
	c.get(bucketRefusals, "", &list)
	for i := range list {
		list[i].what = api.DigestOf(list[i].Evidence)
	}
	return list
}
