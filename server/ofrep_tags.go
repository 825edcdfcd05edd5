package server

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"strings"
	"sync"

	"github.com/sealstone/sealstone/api"
)

// tagSeed ends with the process, as the streams' addresses do that tags cover.
var tagSeed = maphash.MakeSeed()

// tagOf is the entity tag of a bulk answer: a hash over all of it but headAge,
// which is its last member and changes by time alone. So it covers the bundle,
// the context, the clock as far as rules read it, and the stream's address:
// when that is renewed, clients get a whole answer and with it the new one.
func tagOf(answer []byte) string {
	b := binary.BigEndian.AppendUint64(nil, maphash.Bytes(tagSeed, answer))
	return `"` + hex.EncodeToString(b) + `"`
}

// matches implements If-None-Match: lists, weak tags, "*", and tags whose
// quotes a client has lost.
func matches(headers []string, tag string) bool {
	for _, h := range headers {
		for _, t := range strings.Split(h, ",") {
			t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
			if t == tag || t == "*" || t == tag[1:len(tag)-1] {
				return true
			}
		}
	}
	return false
}

// memoKey names a question: the bundle, the stream's address and the body as it
// was sent.
type memoKey [sha256.Size]byte

func keyOf(d api.Digest, stream string, body []byte) memoKey {
	h := sha256.New()
	_, _ = h.Write(append(append([]byte(d), stream...), 0))
	_, _ = h.Write(body)
	var k memoKey
	h.Sum(k[:0])
	return k
}

// maxTags bounds each of the two generations of remembered tags.
const maxTags = 8192

// tags remembers the tags of answers, so that a client that has the answer is
// told so without evaluating. The older half is dropped when the younger one is
// full; what is asked for moves to the younger one.
type tags struct {
	mu         sync.Mutex
	young, old map[memoKey]string
}

func (t *tags) get(k memoKey) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tag, ok := t.young[k]; ok {
		return tag, true
	}
	tag, ok := t.old[k]
	if ok {
		t.add(k, tag)
	}
	return tag, ok
}

func (t *tags) put(k memoKey, tag string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(k, tag)
}

func (t *tags) add(k memoKey, tag string) {
	if len(t.young) >= maxTags || t.young == nil {
		t.old, t.young = t.young, map[memoKey]string{}
	}
	t.young[k] = tag
}
