package canon

import "slices"

// Respell appends the one spelling of a strict JSON value to dst: Encode of what
// Parse reads, without making the tree.
func Respell(dst, b []byte, maxDepth int) ([]byte, error) {
	p := parser{in: b, depth: maxDepth}
	p.space()
	dst, err := p.respell(dst)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.at < len(b) {
		return nil, p.fail("text behind the value")
	}
	return dst, nil
}

func (p *parser) respell(dst []byte) ([]byte, error) {
	switch p.peek() {
	case '{':
		return nested(p, func() ([]byte, error) { return p.respellObject(dst) })
	case '[':
		return nested(p, func() ([]byte, error) { return p.respellArray(dst) })
	case '"':
		text, err := p.text()
		if err != nil {
			return nil, err
		}
		return appendText(dst, text), nil
	}
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	return Append(dst, v)
}

func (p *parser) respellArray(dst []byte) (_ []byte, err error) {
	p.at++
	dst = append(dst, '[')
	if p.space(); p.peek() == ']' {
		p.at++
		return append(dst, ']'), nil
	}
	for {
		p.space()
		if dst, err = p.respell(dst); err != nil {
			return nil, err
		}
		if done, err := p.next(']'); done || err != nil {
			return append(dst, ']'), err
		}
		dst = append(dst, ',')
	}
}

// spelled is a member of an object, and where it stands in what was written of
// that.
type spelled struct {
	key      string
	at       int // in the input
	from, to int
}

func (p *parser) respellObject(dst []byte) (_ []byte, err error) {
	p.at++
	dst = append(dst, '{')
	if p.space(); p.peek() == '}' {
		p.at++
		return append(dst, '}'), nil
	}
	members := make([]spelled, 0, 8)
	for start := len(dst); ; dst = append(dst, ',') {
		p.space()
		m := spelled{at: p.at, from: len(dst) - start}
		if m.key, err = p.key(); err != nil {
			return nil, err
		}
		if dst, err = p.respell(append(appendText(dst, m.key), ':')); err != nil {
			return nil, err
		}
		m.to = len(dst) - start
		members = append(members, m)
		if done, err := p.next('}'); err != nil {
			return nil, err
		} else if done {
			dst, err = sortMembers(dst[:start], dst[start:], members)
			return append(dst, '}'), err
		}
	}
}

// sortMembers appends the members of an object in order.
func sortMembers(dst, text []byte, members []spelled) ([]byte, error) {
	order := func(a, b spelled) int { return compareUTF16(a.key, b.key) }
	if slices.IsSortedFunc(members, order) {
		dst = dst[:len(dst)+len(text)] // it is there
	} else {
		text = slices.Clone(text)
		slices.SortStableFunc(members, order)
		for i, m := range members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, text[m.from:m.to]...)
		}
	}
	for i := range members[1:] {
		if members[i].key == members[i+1].key {
			return nil, duplicate(members[i+1].at, members[i].key)
		}
	}
	return dst, nil
}
