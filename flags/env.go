package flags

import (
	"strconv"
	"sync"
	"unsafe"
)

// Bounds on one evaluation. A step is about one node of a rule, one element
// looped over, or a handful of bytes written.
const (
	maxSteps   = 1 << 20
	keepBytes  = 16 << 10 // scratch kept between evaluations
	keepValues = 1 << 10
)

// budgetError ends an evaluation that used up its steps.
type budgetError struct{}

func (budgetError) Error() string { return "evaluation needs more steps than allowed" }

// An env is the state of one evaluation. It is pooled: nothing a rule computes
// may point into it once the evaluation is over.
type env struct {
	ctx   Context
	key   string // of the flag, for $flagd.flagKey
	now   float64
	item  value // current element inside map, filter, reduce ...
	acc   value // accumulator inside reduce
	steps int

	slots   []slot // attributes already read, by the set's slot number
	touched []uint16

	bytes  []byte
	values []value
	lists  []*list
	used   int // of lists

	trace *tracer // of Explain, else nil
}

type slot struct {
	known bool
	v     value
}

// pool hands out environments of one set, as slots are numbered by the set.
type pool struct {
	sync.Pool
	slots int
}

func (p *pool) get() *env {
	e, _ := p.Get().(*env)
	if e == nil {
		e = &env{slots: make([]slot, p.slots), bytes: make([]byte, 0, 256)}
	}
	e.steps = maxSteps
	return e
}

// put clears what the evaluation left, so the pool keeps no caller's data.
func (p *pool) put(e *env) {
	e.forget()
	e.scrub()
	p.Put(e)
}

// forget drops the context and what was read from it.
func (e *env) forget() {
	for _, i := range e.touched {
		e.slots[i] = slot{}
	}
	e.touched = e.touched[:0]
	e.ctx = nil
}

// scrub drops what the rules computed. Most compute nothing that has to be
// dropped.
func (e *env) scrub() {
	if len(e.bytes) > 0 {
		if cap(e.bytes) > keepBytes {
			e.bytes = nil
		}
		e.bytes = e.bytes[:0]
	}
	if len(e.values)+e.used > 0 {
		e.scrubLists()
	}
}

func (e *env) scrubLists() {
	e.item, e.acc = value{}, value{}
	if cap(e.values) > keepValues {
		e.values = nil
	}
	clear(e.values)
	e.values = e.values[:0]
	for _, l := range e.lists[:e.used] {
		l.items = nil
	}
	e.used = 0
	if len(e.lists) > keepValues {
		e.lists = nil
	}
}

// spend uses n steps up; what runs out of them is ended by a panic that
// the evaluation's entry turns into GENERAL.
func (e *env) spend(n int) {
	if e.steps -= n; e.steps < 0 {
		panic(budgetError{})
	}
}

// look pays for looking through a text. Short ones are part of a node's step.
func (e *env) look(s string) { e.spend(len(s) / 64) }

// take returns n values of scratch.
func (e *env) take(n int) []value {
	e.spend(n)
	start := len(e.values)
	if start+n > cap(e.values) {
		// The old chunk stays with the lists that use it.
		e.values = make([]value, 0, max(2*cap(e.values), n, 16))
		start = 0
	}
	e.values = e.values[:start+n]
	return e.values[start : start+n : start+n]
}

// listOf makes an array value over items, which must be scratch or constant.
func (e *env) listOf(items []value) value {
	if e.used == len(e.lists) {
		e.lists = append(e.lists, new(list))
	}
	l := e.lists[e.used]
	e.used++
	l.items = items
	return value{kind: array, ref: l}
}

// scratchText makes a text of what was appended to the scratch since start. The
// bytes are not written again before the evaluation ends, and growing the
// scratch leaves the old block to the texts in it.
func (e *env) scratchText(start int) value {
	e.spend((len(e.bytes) - start) / 8)
	return e.written(start)
}

// written is scratchText of what was paid for.
func (e *env) written(start int) value {
	b := e.bytes[start:]
	return ofText(unsafe.String(unsafe.SliceData(b), len(b)))
}

// write appends a value's text to the scratch, as cat does: null and objects are
// empty, the elements of an array are joined by commas.
func (e *env) write(v value) { e.writeNested(v, 16) }

// writeNested ends below depth: an array made in Go may contain itself.
func (e *env) writeNested(v value, depth int) {
	switch v.kind {
	case boolean:
		e.bytes = strconv.AppendBool(e.bytes, v.num != 0)
	case number:
		start := len(e.bytes)
		e.bytes = appendPlain(e.bytes, v.num)
		e.spend((len(e.bytes) - start) / 8)
	case text:
		e.spend(len(v.str) / 8)
		e.bytes = append(e.bytes, v.str...)
	case array:
		e.spend(v.len())
		for i := range v.len() {
			if i > 0 {
				e.bytes = append(e.bytes, ',')
			}
			if depth > 0 {
				e.writeNested(v.at(i), depth-1)
			}
		}
	}
}
