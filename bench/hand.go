package main

import (
	"strconv"
	"strings"
)

// handWritten is what an engine can't be faster than: each rule as a Go function
// over the same map of attributes, behind a map from key to flag. It knows
// nothing but these rules and reports no variant and no reason.
func handWritten() engine {
	flags, rules, keys := handFlags(), handRules(), allKeys()
	return engine{
		name: "written by hand",
		note: "the limit: a Go function for each of the three rules",
		for1: func(u map[string]any) asker {
			return asker{
				one: func(key string) loop { return handOne(flags, rules, key, u) },
				all: func() loop {
					return each(keys, func(k string) bool { return flags[k].eval(rules, u) })
				},
			}
		},
	}
}

// handOne has a loop for each rule, so that no choice between them is measured.
func handOne(flags map[string]*handFlag, rules []handRule, key string, u map[string]any) loop {
	switch flags[key].shape {
	case oneRule:
		return func(n int) (on int) {
			for range n {
				if flags[key].email(u) {
					on++
				}
			}
			return on
		}
	case tenRules:
		return func(n int) (on int) {
			for range n {
				if flags[key].ten(rules, u) {
					on++
				}
			}
			return on
		}
	}
	return func(n int) (on int) {
		for range n {
			if flags[key].preset {
				on++
			}
		}
		return on
	}
}

type handFlag struct {
	shape           shape
	on, off, preset bool
}

func handFlags() map[string]*handFlag {
	flags := make(map[string]*handFlag, numFlags)
	for i := range numFlags {
		flags[keyOf(i)] = &handFlag{shape: shapeOf(i), on: true}
	}
	return flags
}

func (f *handFlag) eval(rules []handRule, u map[string]any) bool {
	switch f.shape {
	case oneRule:
		return f.email(u)
	case tenRules:
		return f.ten(rules, u)
	}
	return f.preset
}

func (f *handFlag) email(u map[string]any) bool {
	if s, ok := u["email"].(string); ok && strings.HasSuffix(s, emailSuffix) {
		return f.on
	}
	return f.off
}

type handRule struct {
	countries map[string]bool
	least     [3]int
	seed      string
}

func handRules() []handRule {
	var out []handRule
	for _, r := range theTen() {
		h := handRule{countries: map[string]bool{}, seed: r.seed}
		for _, c := range r.countries {
			h.countries[c] = true
		}
		for i, part := range strings.Split(r.least, ".") {
			h.least[i], _ = strconv.Atoi(part)
		}
		out = append(out, h)
	}
	return out
}

func (f *handFlag) ten(rules []handRule, u map[string]any) bool {
	for i := range rules {
		r := &rules[i]
		country, _ := u["country"].(string)
		if !r.countries[country] {
			continue
		}
		version, _ := u["version"].(string)
		if !atLeast(version, r.least) {
			continue
		}
		key, _ := u["targetingKey"].(string)
		if uint64(murmur3(r.seed+key))*100>>32 < 50 {
			return f.on
		}
		return f.off
	}
	return f.off
}

func atLeast(s string, least [3]int) bool {
	for i := range 3 {
		part, rest, _ := strings.Cut(s, ".")
		n, err := strconv.Atoi(part)
		if err != nil {
			return false
		}
		if n != least[i] {
			return n > least[i]
		}
		s = rest
	}
	return true
}

// murmur3 is MurmurHash3 x86 32-bit with seed 0, which fractional uses.
func murmur3(s string) uint32 {
	const c1, c2 = 0xcc9e2d51, 0x1b873593
	var h uint32
	n := uint32(len(s))
	for ; len(s) >= 4; s = s[4:] {
		k := (uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24) * c1
		h ^= (k<<15 | k>>17) * c2
		h = (h<<13|h>>19)*5 + 0xe6546b64
	}
	var k uint32
	for i := len(s) - 1; i >= 0; i-- {
		k = k<<8 | uint32(s[i])
	}
	k *= c1
	h ^= (k<<15 | k>>17) * c2
	h ^= n
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}
