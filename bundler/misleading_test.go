package bundler_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

// A comment must not hide configuration from a reviewer.
func TestCharactersThatMisleadReviewersAreRefused(t *testing.T) {
	for _, r := range []rune{0x85, 0x2028, 0x2029, 0x202e, 0x2066} {
		t.Run(fmt.Sprintf("U+%04X", r), func(t *testing.T) {
			files := gittest.With(shop(), map[string]string{"services/checkout/config/http.yaml": "# raised later" + string(r) + "allowRefunds: true\nport: 1\n"})
			b, commit := open(t, files)
			rep, err := b.Check(context.Background(), commit, bundler.CheckOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(rep.Faults) == 0 || !strings.HasPrefix(rep.Faults[0].String(), "services/checkout/config/http.yaml:1:15: E_ENCODING ") {
				t.Errorf("%v", rep.Faults)
			}
		})
	}
}
