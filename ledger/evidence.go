package ledger

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sealstone/sealstone/api"
)

// Evidence is a head and what is needed to believe it: the answer of
// /v1/evidence, a client's cache record, an export, and what "changes proof"
// writes. All proofs are at the head's tree.
type Evidence struct {
	Head        string           `json:"head,omitempty"` // absent in the proof of a single change
	Checkpoint  string           `json:"checkpoint"`
	Consistency []string         `json:"consistency"`
	Changes     []EvidenceChange `json:"changes"`
}

// EvidenceChange is a leaf with its inclusion proof and, unless erased or not
// asked for, its detail.
type EvidenceChange struct {
	Index  int64          `json:"index"`
	Leaf   Leaf           `json:"leaf"`
	Proof  []string       `json:"proof"`
	Salt   string         `json:"salt,omitempty"`
	Detail map[string]any `json:"detail,omitempty"`
}

// Leaf is the exact bytes of an entry; in JSON base64 in its one spelling.
type Leaf []byte

// UnmarshalJSON is stricter than Go's reading of bytes, which passes over stray
// bits and line ends.
func (l *Leaf) UnmarshalJSON(b []byte) (err error) {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*l, err = decodeBase64(s)
	return err
}

// Check names the step of verification that failed.
type Check string

// The checks, in the order in which a client makes them.
const (
	CheckTrust              Check = "trust"
	CheckHead               Check = "head"
	CheckHeadRollback       Check = "head-rollback"
	CheckCheckpoint         Check = "checkpoint"
	CheckConsistent         Check = "consistency"
	CheckIncluded           Check = "inclusion"
	CheckNodeSignature      Check = "node-signature"
	CheckChange             Check = "change"
	CheckStatementSignature Check = "statement-signature"
	CheckPermission         Check = "permission"
	CheckLog                Check = "log"
	CheckScope              Check = "scope"
	CheckChains             Check = "chains"
	CheckSet                Check = "set"
	CheckManifest           Check = "manifest"
	CheckObject             Check = "object"
	CheckDryRun             Check = "dry-run"
)

// CheckError is a refusal by a named check.
type CheckError struct {
	Check Check
	Err   error
}

func (e *CheckError) Error() string { return fmt.Sprintf("check %q failed: %v", e.Check, e.Err) }
func (e *CheckError) Unwrap() error { return e.Err }

// Refuse wraps an error with the check that found it; nil stays nil.
func Refuse(c Check, err error) error {
	if err == nil {
		return nil
	}
	return &CheckError{c, err}
}

// Known is what a client has proven before and keeps: it must never go back.
// The log orders it, not the clocks of those who sign heads: see decision 0025.
// The zero value knows nothing.
type Known struct {
	Tree    Tree
	Chains  []Chain
	Changes map[int64]*Change // proven, by index; see Evidence's have
}

// Proven is a head that was believed, with the changes it cites.
type Proven struct {
	Head      *Head
	Tree      Tree
	Chains    []Chain // of the head's lines
	Changes   map[int64]*Change
	Operators *Operators // the head's set; nil before the first
}

// Known is what to keep of it.
func (p *Proven) Known() *Known {
	return &Known{p.Tree, p.Chains, p.Changes}
}

// StandsAlone tells whether evidence brought along every change that p was
// believed by. What does not may lean on what was known before, and would prove
// nothing to who comes later and knows nothing: it must not replace what does.
func (p *Proven) StandsAlone(e *Evidence) error {
	brought := map[int64]bool{}
	for _, c := range e.Changes {
		brought[c.Index] = true
	}
	for i := range p.Changes {
		if !brought[i] {
			return Refuse(CheckIncluded, fmt.Errorf("entry %d did not come along, though all was asked for: the answer does not stand alone", i))
		}
	}
	return nil
}

// Prove verifies evidence for a service, from the trust file down, against what
// was known before. Every refusal is a *CheckError.
func (t *Trust) Prove(e *Evidence, service string, known *Known) (*Proven, error) {
	if known == nil {
		known = &Known{}
	}
	p := &prover{trust: t, known: known, Proven: Proven{Changes: map[int64]*Change{}}, sets: map[int64]*setChange{}}
	for _, step := range []func(*Evidence, string) error{p.head, p.tree, p.changes, p.lines} {
		if err := step(e, service); err != nil {
			return nil, err
		}
	}
	return &p.Proven, nil
}

type prover struct {
	Proven
	trust *Trust
	known *Known
	sets  map[int64]*setChange // operators sets by index
	have  map[int64]*Change    // all that may be cited
}

type setChange struct {
	*Operators
	prev int64 // index of the set before it, 0 for the first
}

func (p *prover) head(e *Evidence, service string) error {
	h, err := p.trust.OpenHead([]byte(e.Head))
	if err != nil {
		return Refuse(CheckHead, err)
	}
	if h.Service != service {
		return Refuse(CheckHead, fmt.Errorf("the head is of service %q, wanted %q", h.Service, service))
	}
	if h.Tree.Size < p.known.Tree.Size {
		return Refuse(CheckHeadRollback, fmt.Errorf("issued %s at size %d, but size %d is known", api.FormatTime(h.Issued), h.Tree.Size, p.known.Tree.Size))
	}
	p.Head = h
	return nil
}

func (p *prover) tree(e *Evidence, _ string) error {
	tree, err := p.trust.OpenCheckpoint([]byte(e.Checkpoint))
	if err != nil {
		return Refuse(CheckCheckpoint, err)
	}
	if tree != p.Head.Tree {
		return Refuse(CheckCheckpoint, errors.New("head and checkpoint name different trees"))
	}
	p.Tree = tree
	if p.known.Tree.Size == 0 {
		return nil
	}
	return Refuse(CheckConsistent, CheckConsistency(p.known.Tree, tree, e.Consistency))
}

// changes checks every change that came along: inclusion, node, log.
func (p *prover) changes(e *Evidence, _ string) error {
	p.have = map[int64]*Change{}
	for i, c := range p.known.Changes {
		p.have[i] = c
	}
	if len(e.Changes) > 4*api.MaxChains {
		return Refuse(CheckIncluded, fmt.Errorf("%d changes, limit %d", len(e.Changes), 4*api.MaxChains))
	}
	for _, ec := range e.Changes {
		c, err := p.trust.ProveChange(&ec, p.Tree)
		if err != nil {
			return err
		}
		p.have[ec.Index] = c
	}
	for i, c := range p.have {
		if c.Roots == nil {
			continue
		}
		ops, err := p.trust.OperatorsAt(i, c.Data.Statement)
		if err != nil {
			return Refuse(CheckStatementSignature, fmt.Errorf("entry %d: %w", i, err))
		}
		ops.Index, ops.Hash = i, c.Hash
		p.sets[i] = &setChange{ops, c.Data.Operators}
	}
	return p.headSet()
}

func (p *prover) headSet() error {
	ref := p.Head.Operators
	if err := p.setsAdvance(ref.Index); err != nil {
		return Refuse(CheckChains, err)
	}
	if ref.Hash == "" {
		return nil
	}
	set := p.sets[ref.Index]
	if set == nil || set.Hash != ref.Hash {
		return Refuse(CheckPermission, fmt.Errorf("the head's operators set, entry %d, did not come along", ref.Index))
	}
	p.Operators = set.Operators
	p.Changes[ref.Index] = p.have[ref.Index]
	return nil
}

// setsAdvance holds the operators sets that came along, or are known, to what
// the fold demands: a later one has a higher version, and none is newer than the
// head's. A node could else record a set again that the roots have replaced.
func (p *prover) setsAdvance(head int64) error {
	for i, a := range p.sets {
		if i > head {
			return fmt.Errorf("the head's operators set is entry %d, but entry %d is a later one", head, i)
		}
		for j, b := range p.sets {
			if i < j && a.Version >= b.Version {
				return fmt.Errorf("operators went from version %d, entry %d, back to %d, entry %d", a.Version, i, b.Version, j)
			}
		}
	}
	return nil
}

// ProveChange verifies one change against a tree: inclusion, form, the node's
// signature, the log it is of, and the hash of the detail where it came along.
func (t *Trust) ProveChange(ec *EvidenceChange, tree Tree) (*Change, error) {
	at := func(c Check, err error) error {
		if err == nil {
			return nil
		}
		return Refuse(c, fmt.Errorf("entry %d: %w", ec.Index, err))
	}
	if err := at(CheckIncluded, CheckInclusion(tree, ec.Index, ec.Leaf, ec.Proof)); err != nil {
		return nil, err
	}
	c, err := ParseLeaf(ec.Leaf)
	if err != nil {
		return nil, at(CheckChange, err)
	}
	if err := at(CheckNodeSignature, t.CheckNode(ec.Index, c.Envelope)); err != nil {
		return nil, err
	}
	if c.Source != t.Origin {
		return nil, at(CheckLog, fmt.Errorf("source %.64q, want %q", c.Source, t.Origin))
	}
	if ec.Detail != nil {
		d := Detail{ec.Salt, ec.Detail}
		if name, err := d.Digest(); err != nil || name != c.Data.Detail {
			return nil, at(CheckChange, errors.Join(errors.New("the detail is not the one the leaf names"), err))
		}
	}
	return c, nil
}

// ProveAlone verifies evidence without a head: the proof of single changes. It
// checks each change as Prove does, and each statement by the operators set that
// the change cites, which must have come along. That no newer set was in force
// is shown only by a head. It returns the changes by index.
func (t *Trust) ProveAlone(e *Evidence, tree Tree) (map[int64]*Change, error) {
	changes, sets := map[int64]*Change{}, map[int64]*Operators{}
	for _, ec := range e.Changes {
		c, err := t.ProveChange(&ec, tree)
		if err != nil {
			return nil, err
		}
		if err := c.CheckSafeMode(); err != nil {
			return nil, Refuse(CheckPermission, fmt.Errorf("entry %d: %w", ec.Index, err))
		}
		changes[ec.Index] = c
		if c.Roots != nil {
			if sets[ec.Index], err = t.OperatorsAt(ec.Index, c.Data.Statement); err != nil {
				return nil, Refuse(CheckStatementSignature, fmt.Errorf("entry %d: %w", ec.Index, err))
			}
		}
	}
	for index, c := range changes {
		if c.Statement == nil || c.Kind() == StatementLate { // a late one is kept, not obeyed: its signer may be gone
			continue
		}
		cited := c.Data.Operators
		if sets[cited] == nil || cited >= index {
			return nil, Refuse(CheckPermission, fmt.Errorf("entry %d: the operators set it cites, entry %d, did not come along", index, cited))
		}
		if _, err := sets[cited].Judge(c.Statement); err != nil {
			return nil, Refuse(CheckStatementSignature, fmt.Errorf("entry %d: %w", index, err))
		}
	}
	return changes, nil
}

// lines checks the change of every line of the head, and that no chain went
// back or away, or moved while the log stood still.
func (p *prover) lines(_ *Evidence, service string) error {
	for _, l := range p.Head.Lines {
		c := p.have[l.Index]
		if c == nil || c.Hash != l.Hash {
			return Refuse(CheckIncluded, fmt.Errorf("entry %d, which the head cites, did not come along", l.Index))
		}
		if c.Data.Service != service || c.Data.Lane != l.Lane || c.Data.Scope != l.Scope {
			return Refuse(CheckScope, fmt.Errorf("entry %d is of chain %s, the head cites it for %s %s", l.Index, c.Data.Chain(), l.Lane, l.Scope))
		}
		if err := p.judge(l.Index, c); err != nil {
			return err
		}
		p.Changes[l.Index] = c
		p.Chains = append(p.Chains, ChainOf(l.Index, c))
	}
	return p.noneBack()
}

// judge checks a change's statement by the operators set it cites, which must
// have been in force: the head's, or one whose successor came later.
func (p *prover) judge(index int64, c *Change) error {
	cited := c.Data.Operators
	if err := p.inForce(index, cited); err != nil {
		return Refuse(CheckPermission, fmt.Errorf("entry %d: %w", index, err))
	}
	if err := c.CheckSafeMode(); err != nil {
		return Refuse(CheckPermission, fmt.Errorf("entry %d: %w", index, err))
	}
	if c.Statement == nil {
		return nil
	}
	var ops *Operators
	if set := p.sets[cited]; set != nil {
		ops = set.Operators
	}
	_, err := ops.Judge(c.Statement)
	if errors.Is(err, ErrSignature) {
		return Refuse(CheckStatementSignature, fmt.Errorf("entry %d: %w", index, err))
	}
	return Refuse(CheckPermission, err)
}

func (p *prover) inForce(index, cited int64) error {
	if cited != 0 {
		set := p.sets[cited]
		if set == nil || cited >= index {
			return fmt.Errorf("the operators set it cites, entry %d, did not come along", cited)
		}
		p.Changes[cited] = p.have[cited]
	}
	if cited == p.Head.Operators.Index {
		return nil
	}
	for next, set := range p.sets {
		if set.prev == cited && next > index {
			p.Changes[next] = p.have[next]
			return nil
		}
	}
	return fmt.Errorf("nothing shows that operators set %d was in force", cited)
}

func (p *prover) noneBack() error {
	still := p.Tree.Size == p.known.Tree.Size
	if still && len(p.Chains) > len(p.known.Chains) {
		return Refuse(CheckChains, fmt.Errorf("two heads of size %d have %d and %d chains", p.Tree.Size, len(p.known.Chains), len(p.Chains)))
	}
	for _, old := range p.known.Chains {
		if old.Pending {
			continue
		}
		now, ok := Chain{}, false
		for _, c := range p.Chains {
			if c.Lane == old.Lane && c.Scope == old.Scope {
				now, ok = c, true
			}
		}
		switch {
		case !ok:
			return Refuse(CheckChains, fmt.Errorf("chain %s %s is gone", old.Lane, old.Scope))
		case now.Generation < old.Generation, now.Generation == old.Generation && now.Hash != old.Hash:
			return Refuse(CheckChains, fmt.Errorf("chain %s %s went from generation %d back to %d", old.Lane, old.Scope, old.Generation, now.Generation))
		case still && now.Hash != old.Hash:
			return Refuse(CheckChains, fmt.Errorf("chain %s %s is at generation %d and at %d in heads of one size", old.Lane, old.Scope, old.Generation, now.Generation))
		case now.Generation == old.Generation+1 && now.Kind == SafeModeExited && p.have[now.Index].Statement == nil &&
			(old.OnExpiry != "restore" || old.Expires > now.Recorded):
			return Refuse(CheckPermission, fmt.Errorf("entry %d: the node left mode %q at %s by itself before it ran out", now.Index, old.Mode, now.Scope))
		}
	}
	return nil
}
