package ledgertest

import (
	"testing"

	"github.com/sealstone/sealstone/ledger"
)

func TestFixtureIsJudgedRight(t *testing.T) {
	f := New(t)
	if by, err := f.OperatorsSet.Judge(f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)); err != nil || by.Operator != OperatorID {
		t.Fatalf("Judge = %q, %v", by, err)
	}
	st := f.StatementBy(f.Stranger, ledger.NoteAdded, "checkout", "prod", nil)
	if _, err := f.OperatorsSet.Judge(st); err == nil {
		t.Fatal("a stranger's statement was believed")
	}
	if again := New(t); again.Trust.Digest != f.Trust.Digest {
		t.Fatal("two fixtures of one origin differ")
	}
}
