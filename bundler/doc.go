// Package bundler turns commits of a config repository into sets of bundles.
//
// It reads objects of commits, never a work tree, and neither clock,
// environment, network nor randomness, so the same content has the same digest
// in every clone. What is wrong with a repository is reported as [Faults]: all
// of them in one run, each with file, line, column, rule and fix.
//
//	repo, err := bundler.OpenRepo(".")
//	commit, err := repo.Resolve("HEAD")
//	b := bundler.New(repo)
//	tip, faults := b.Tip(ctx, commit)
//	for _, a := range tip.Activations {
//		built, err := b.Build(ctx, tip, a) // a bundle.Set and all it names
//	}
//
// A [Builder] remembers what it built by Git ids, so a build costs what
// changed. How a value comes to be, layer by layer, is in resolve.go; what is
// refused, in rules.go.
package bundler
