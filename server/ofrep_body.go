package server

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/canon"
)

// maxOFREPBody bounds an evaluation context, in bytes.
const maxOFREPBody = 1 << 20

// maxKept bounds what a buffer may hold on to between requests, in bytes.
const maxKept = 1 << 20

// body is what a request reads and writes, used again by later ones.
type body struct {
	in   bytes.Buffer
	out  []byte
	list []flags.Resolution
}

var bodies = sync.Pool{New: func() any { return new(body) }}

func getBody() *body { return bodies.Get().(*body) }

func (b *body) free() {
	if b.in.Cap() > maxKept || cap(b.out) > maxKept {
		return
	}
	clear(b.list) // outcomes point into bundles, which must be able to go
	b.in.Reset()
	b.out, b.list = b.out[:0], b.list[:0]
	bodies.Put(b)
}

// read takes the whole body of a request.
func (b *body) read(r *http.Request) error {
	tooLarge := &api.Error{Code: api.CodeTooLarge, Detail: "an evaluation context may have " + strconv.Itoa(maxOFREPBody) + " bytes"}
	if r.ContentLength > maxOFREPBody {
		return tooLarge
	}
	if _, err := b.in.ReadFrom(io.LimitReader(r.Body, maxOFREPBody+1)); err != nil {
		return &api.Error{Code: api.CodeInvalid, Detail: "the body ended early", Err: err}
	}
	if b.in.Len() > maxOFREPBody {
		return tooLarge
	}
	return nil
}

// context reads {"context":{...}}, leniently: an empty body and a missing
// context are an empty context.
func (b *body) context() (flags.Context, error) {
	if len(bytes.TrimSpace(b.in.Bytes())) == 0 {
		return flags.Context{}, nil
	}
	v, err := parseJSON(b.in.Bytes())
	if err != nil {
		return nil, ofrepFault{"INVALID_CONTEXT", "the body: " + err.Error()}
	}
	req, ok := v.(map[string]any)
	if !ok {
		return nil, ofrepFault{"INVALID_CONTEXT", "the body is not a JSON object"}
	}
	if req["context"] == nil {
		return flags.Context{}, nil
	}
	ctx, ok := req["context"].(map[string]any)
	if !ok {
		return nil, ofrepFault{"INVALID_CONTEXT", "context is not a JSON object"}
	}
	return ctx, nil
}

// parseJSON is strict where that is cheap and lenient where it must be: a name
// cut in the middle of an emoji or an id beyond 2^53 is what real contexts
// hold, and no reason to leave a page without flags. What encoding/json reads
// is read, as deep as the strict parser goes.
func parseJSON(b []byte) (any, error) {
	v, strict := canon.Parse(b, canon.MaxDepth)
	if strict == nil {
		return v, nil
	}
	if json.Unmarshal(b, &v) != nil || deeper(v, canon.MaxDepth) {
		return nil, strict
	}
	return v, nil
}

// deeper tells whether a value nests over a number of levels.
func deeper(v any, levels int) bool {
	var members []any
	switch v := v.(type) {
	case map[string]any:
		for _, m := range v {
			members = append(members, m)
		}
	case []any:
		members = v
	default:
		return false
	}
	if levels == 0 {
		return true
	}
	for _, m := range members {
		if deeper(m, levels-1) {
			return true
		}
	}
	return false
}

var jsonType = []string{"application/json"}

// send answers with what was written.
func (b *body) send(c echo.Context, status int) error {
	h := c.Response().Header()
	h[echo.HeaderContentType] = jsonType
	h[echo.HeaderContentLength] = []string{strconv.Itoa(len(b.out))} // or net/http would send chunks
	c.Response().WriteHeader(status)
	_, _ = c.Response().Write(b.out) // the client is gone
	return nil
}
