package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

func newSource(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "source", Short: "Decide on a rewritten branch"}
	var rev, reason string
	accept := &cobra.Command{
		Use:   "accept --rev COMMIT",
		Short: "Let a rewrite through that the server refused",
		Long: "Let a rewrite of the branch through that the server refused and recorded. It is a\n" +
			"signed statement and needs the permission source; it holds for this one step from\n" +
			"the accepted commit to the refused one.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.acceptSource(c.Context(), rev, reason) },
	}
	accept.Flags().StringVar(&rev, "rev", "", "the refused commit, 7 to 40 hex digits (required)")
	accept.Flags().StringVar(&reason, "reason", "", "why; goes into the detail")
	_ = accept.MarkFlagRequired("rev")
	cmd.AddCommand(accept)
	return cmd
}

func (a *app) acceptSource(ctx context.Context, rev, reason string) error {
	key, c, origin, err := a.signing(ctx)
	if err != nil {
		return err
	}
	var st api.Status
	if err := c.get(ctx, "/v1/status", nil, &st); err != nil {
		return err
	}
	if st.Source.Refused == "" {
		return &api.Error{Code: api.CodeConflict, Detail: "the server refuses no rewrite now, so there is none to accept", Hint: "sealstone status shows how the source does"}
	}
	if len(rev) < 7 || !strings.HasPrefix(st.Source.Refused, rev) {
		return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("the server refused %s, not %.64q", st.Source.Refused, rev), Hint: "look at what it refused first: sealstone changes --kind source.refused"}
	}
	s := newStatement(origin, ledger.SourceAccepted, api.Target{}, serverTime(ctx, c))
	s.From, s.To = st.Source.Tip, st.Source.Refused
	body, err := signSubmission(s, reason, key)
	if err != nil {
		return err
	}
	r, err := c.submitOnce(ctx, body)
	if err != nil {
		return err
	}
	return a.printReceipts([]api.Receipt{*r})
}
