package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/plan"
)

func newPlan(a *app) *cobra.Command {
	var base, head string
	var code bool
	cmd := &cobra.Command{
		Use:   "plan [DIR]",
		Short: "Show what a revision would change, for a reviewer",
		Long: "Show what merging --head into --base would change: what goes live, what waits for\n" +
			"a promotion, values with the lines that set them, how recorded contexts evaluate\n" +
			"then, and the commands to promote, to go back and to build the same bytes. It\n" +
			"reads what is committed. -o markdown is for a pull request's comment. With a\n" +
			"server it counts running instances. Exit 1 when the head has errors.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.plan(c.Context(), dirArg(args), base, head, code)
		},
	}
	f := cmd.Flags()
	f.StringVar(&base, "base", "", "revision to compare with (default: where HEAD left origin/main or main)")
	f.StringVar(&head, "head", "HEAD", "revision to plan")
	f.BoolVar(&code, "exit-code", false, "exit 2 when something changes")
	return cmd
}

func (a *app) plan(ctx context.Context, dir, base, head string, code bool) error {
	repo, err := bundler.OpenRepo(dir)
	if err != nil {
		return err
	}
	p, err := a.makePlan(ctx, repo, base, head)
	if err != nil {
		return deepen(repo, err)
	}
	if repo.Lacks() {
		return &api.Error{Code: api.CodeInvalid, Detail: "files of these commits are missing in this clone, so a plan would guess", Hint: bundler.FetchObjects}
	}
	if head == "HEAD" {
		a.noteDirty(dir)
	}
	if len(p.Errors) > 0 {
		a.noteShallow(dir)
	}
	if err := a.printPlan(p); err != nil {
		return err
	}
	switch {
	case p.Verdict == plan.Refused || len(p.Errors) > 0:
		return exitCode(exitError)
	case code && p.Verdict != plan.Nothing:
		return exitCode(exitFinding)
	}
	return nil
}

func (a *app) makePlan(ctx context.Context, repo *bundler.Repo, base, head string) (*plan.Plan, error) {
	next, err := repo.Resolve(head)
	if err != nil {
		return nil, err
	}
	opt := plan.Options{Base: base, Head: head, Now: time.Now()}
	var old string
	if base != "" {
		old, err = askedBase(ctx, repo, next, &opt)
	} else {
		old, opt.Base, err = findBase(ctx, repo, next)
	}
	if err != nil {
		return nil, err
	}
	a.askLive(ctx, &opt)
	b := bundler.New(repo)
	defer a.building("planning", b)()
	return plan.Make(ctx, b, old, next, opt)
}

// askedBase is a revision, or where head left it when head doesn't contain it:
// a merge keeps what came to the base since.
func askedBase(ctx context.Context, repo *bundler.Repo, head string, opt *plan.Options) (string, error) {
	base, err := repo.Resolve(opt.Base)
	if err != nil {
		return "", err
	}
	found, err := repo.MergeBases(ctx, base, head)
	if err != nil || slices.Contains(found, base) {
		return base, err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%s and %s have no commit in common, so one can't be merged into the other", short(base), short(head))
	}
	opt.Note = fmt.Sprintf("%s has commits that the head does not contain. They are left out: compared with the merge base, as a merge would keep them", opt.Base)
	opt.Note += severalBases(found)
	opt.Base = "merge base with " + opt.Base
	return found[0], nil
}

// severalBases says that a merge has more than one start, so that what one of
// them has already may show as a change.
func severalBases(found []string) string {
	if len(found) < 2 {
		return ""
	}
	return fmt.Sprintf(". The two were merged into each other, so there are %d merge bases; this is the newest, and a change may show that the base has already. Merge the base into the branch to see only what is new", len(found))
}

// findBase is where a commit left the main branch; for one that is on it, the
// commit before. how says which.
func findBase(ctx context.Context, repo *bundler.Repo, head string) (base, how string, err error) {
	for _, branch := range []string{"refs/remotes/origin/main", "refs/heads/main"} {
		tip, err := repo.Resolve(branch)
		if err != nil {
			continue
		}
		found, err := repo.MergeBases(ctx, tip, head)
		if err != nil {
			return "", "", err
		}
		if len(found) > 0 && found[0] != head {
			return found[0], "merge base with " + branch, nil
		}
	}
	c, err := repo.Commit(head)
	if err != nil {
		return "", "", err
	}
	if len(c.Parents) == 0 {
		return "", "", nil
	}
	if _, err := repo.Commit(c.Parents[0]); errors.Is(err, bundler.ErrNoCommit) {
		return "", "", fmt.Errorf("the parent of %s: %w", short(head), bundler.ErrShallow)
	}
	return c.Parents[0], "its first parent", nil
}

// noteShallow says why commits may be missing.
func (a *app) noteShallow(dir string) {
	if repo, err := bundler.OpenRepo(dir); err == nil && repo.Shallow() {
		fmt.Fprintln(a.err, "note: this is a shallow clone, so commits that activations name, or that come before, may be missing. "+bundler.FetchCommits)
	}
}

// deepen names the way out of a shallow clone, where commits are missing.
func deepen(repo *bundler.Repo, err error) error {
	if errors.Is(err, bundler.ErrShallow) || errors.Is(err, bundler.ErrNoCommit) && repo.Shallow() {
		return &api.Error{Code: api.CodeInvalid, Detail: err.Error(), Hint: bundler.FetchCommits, Err: err}
	}
	return err
}

// askLive asks the server, when there is one, what runs. A plan goes on without.
func (a *app) askLive(ctx context.Context, opt *plan.Options) {
	if a.server == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := a.client()
	var live api.Live
	var modes api.SafeModes
	var status api.Status
	if err == nil {
		err = c.get(ctx, "/v1/live", nil, &live)
	}
	if err == nil {
		err = c.get(ctx, "/v1/safe-modes", url.Values{}, &modes)
	}
	if err == nil {
		err = c.get(ctx, "/v1/status", nil, &status)
	}
	if err != nil {
		opt.LiveError = err.Error()
		return
	}
	opt.Live, opt.InForce, opt.Accepted = &live, modes.InForce, status.Source.Tip
	for _, r := range status.Rejected {
		opt.Rejected = append(opt.Rejected, r.Service)
	}
}

func (a *app) printPlan(p *plan.Plan) error {
	switch a.output {
	case "text":
		p.WriteText(a.out)
		return nil
	case "markdown":
		_, err := io.WriteString(a.out, p.Markdown())
		return err
	}
	err := a.print(p, p.WriteText)
	if err != nil && !slices.Contains([]string{"json", "jsonl", "yaml", "table"}, a.output) {
		return fmt.Errorf("%w; a plan also text and markdown", err)
	}
	return err
}
