package flags

import (
	"errors"
	"strconv"
	"strings"
)

// An Error is one fault of a document. Path is a JSON pointer (RFC 6901) into
// the document that was compiled, so a caller that knows where each value came
// from can turn it into file, line and column. An empty Path is the document.
type Error struct {
	Path string
	Msg  string
}

func (e *Error) Error() string {
	if e.Path == "" {
		return "flags: " + e.Msg
	}
	return "flags: " + e.Path + ": " + e.Msg
}

// Faults returns every *Error inside err, in document order, so that callers
// need not know how Compile joins them.
func Faults(err error) []*Error {
	var one *Error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Error
		for _, e := range joined.Unwrap() {
			all = append(all, Faults(e)...)
		}
		return all
	}
	if errors.As(err, &one) {
		return []*Error{one}
	}
	return nil
}

// maxFaults bounds a report: beyond it a document is not wrong but hostile.
const maxFaults = 1000

// A report collects faults below a current position in the document.
type report struct {
	steps []step
	found []error
}

// A step is one member name, or one array index when name is absent.
type step struct {
	name  string
	index int // -1 for a member
}

func (r *report) enter(name string) { r.steps = append(r.steps, step{name, -1}) }
func (r *report) enterIndex(i int)  { r.steps = append(r.steps, step{"", i}) }
func (r *report) leave()            { r.steps = r.steps[:len(r.steps)-1] }

// each visits what lies directly below n.
func (r *report) each(n *node, visit func(*node)) {
	for i := range n.items {
		if n.kind == objectNode {
			r.enter(n.keys[i])
		} else {
			r.enterIndex(i)
		}
		visit(&n.items[i])
		r.leave()
	}
}

func (r *report) fault(msg string) {
	if len(r.found) < maxFaults {
		r.found = append(r.found, &Error{Path: r.pointer(), Msg: msg})
	}
}

// faultAt reports about a member of the current position.
func (r *report) faultAt(name, msg string) {
	r.enter(name)
	r.fault(msg)
	r.leave()
}

func (r *report) err() error { return errors.Join(r.found...) }

func (r *report) pointer() string {
	var b strings.Builder
	for _, s := range r.steps {
		b.WriteByte('/')
		if s.index >= 0 {
			b.WriteString(strconv.Itoa(s.index))
			continue
		}
		pointerEscape.WriteString(&b, s.name)
	}
	return b.String()
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

// quote shows a name in a message, shortened: messages never carry long values.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strconv.Quote(s)
}
