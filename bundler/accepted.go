package bundler

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// Refusal is why a server whose last accepted tip is before would take nothing
// of a commit; before is nil for its first. Without any, faults cost services
// at most, and the tip is accepted. Signatures are judged by the commit's own
// operators.yaml. The error is about storage or ctx.
func (b *Builder) Refusal(ctx context.Context, commit string, before *Tip) (*Tip, Faults, error) {
	if before == nil {
		before = &Tip{}
	}
	tip, faults := b.Tip(ctx, commit)
	if err := ctx.Err(); err != nil || tip == nil {
		return nil, faults, err
	}
	var out Faults
	for _, f := range faults.Errors() {
		if f.Service == "" && !strings.HasPrefix(f.File, "operators.") && !strings.HasPrefix(f.File, "clients.") {
			out = append(out, f)
		}
	}
	out = append(out, tip.LevelsGrew(before.Config.Levels)...)
	if !tip.Config.RequireSigned && !before.Config.RequireSigned {
		return tip, out, nil
	}
	err := b.SignedTip(tip, tip.keys())
	fs, ok := FaultsOf(err)
	if err != nil && !ok {
		return nil, nil, err
	}
	return tip, append(out, fs...), nil
}

// keys are those of the tip's own operators.yaml, signed by a root or not.
func (t *Tip) keys() Signers {
	keys := Signers{}
	if ops, _ := ParseOperators(t.Operators); ops != nil {
		for _, o := range ops.Operators {
			for _, k := range o.Keys {
				keys[k] = o.ID
			}
		}
	}
	return keys
}

// Accepted lists the commits, from one back along first parents, whose tips a
// server that saw each of them would have accepted: the newest first. It looks
// at most at that many. refused is why the first commit is not among them.
func (b *Builder) Accepted(ctx context.Context, commit string, most int) (accepted []string, refused Faults, err error) {
	chain, err := b.firstParents(commit, most)
	if err != nil {
		return nil, nil, err
	}
	var last *Tip
	for _, id := range slices.Backward(chain) {
		tip, faults, err := b.Refusal(ctx, id, last)
		if err != nil {
			return nil, nil, err
		}
		if refused = faults; len(faults) == 0 {
			last = tip
			accepted = append(accepted, id)
		}
	}
	slices.Reverse(accepted)
	return accepted, refused, nil
}

// firstParents ends where the history does, or a shallow clone.
func (b *Builder) firstParents(commit string, most int) ([]string, error) {
	var out []string
	for len(out) < most {
		c, err := b.repo.Commit(commit)
		if errors.Is(err, ErrNoCommit) && len(out) > 0 {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, commit)
		if len(c.Parents) == 0 {
			return out, nil
		}
		commit = c.Parents[0]
	}
	return out, nil
}
