package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
)

func newLiveFlags(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "flags TARGET",
		Short: "List a target's flags, each with the change that last touched it",
		Args:  cobra.ExactArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.liveFlags(c.Context(), args[0]) },
	}
}

func (a *app) liveFlags(ctx context.Context, target string) error {
	if _, err := api.ParseTarget(target); err != nil {
		return err
	}
	var answer api.LiveFlags
	if err := a.get(ctx, "/v1/flags", url.Values{"target": {target}}, &answer); err != nil {
		return err
	}
	fmt.Fprintln(a.err, "note: the rows are the server's word: with --trust, sealstone live proves their bundle, and sealstone changes show an entry")
	return a.print(answer, func(w io.Writer) {
		now, err := api.ParseTime(answer.Time)
		if err != nil {
			now = time.Now()
		}
		var rows [][]string
		for _, f := range answer.Flags {
			rows = append(rows, flagRow(f, now))
		}
		fitted(w, "FLAG STATE DEFAULT RULES CHANGED ENTRY BY WHY", rows)
	})
}

func flagRow(f api.LiveFlag, now time.Time) []string {
	row := []string{f.Key, f.State, dash(f.Default), strconv.Itoa(f.Rules)}
	ch := f.Changed
	if ch == nil {
		return append(row, "-", fmt.Sprintf("before %d", f.Since), "-", "not found further back: ask again, unless it was erased")
	}
	return append(row, ago(ch.Time, now), entryOr(ch.Index, "pending"), dash(ch.By), dash(ch.Why))
}

func newLiveDeps(a *app) *cobra.Command {
	var below, service string
	cmd := &cobra.Command{
		Use:   "deps NAME",
		Short: "Show who runs a dependency, or a version of it below another",
		Long: "Show who runs a dependency, by the lists that instances report. NAME is as in a package\n" +
			"URL, with or without pkg:type/ in front: golang.org/x/net, pkg:npm/lodash, stdlib. With\n" +
			"@VERSION behind it is that version only.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.liveArtifacts(c.Context(), url.Values{"dependency": {args[0]}, "below": {below}, "service": {service}})
		},
	}
	cmd.Flags().StringVar(&below, "below", "", "only versions below this one, for example v0.40.0")
	cmd.Flags().StringVar(&service, "service", "", "only this service")
	return cmd
}

func newLiveImages(a *app) *cobra.Command {
	var base, image, service string
	cmd := &cobra.Command{
		Use:   "images [--base DIGEST | --image DIGEST]",
		Short: "Show which artifact and image runs where, or who runs one, or stands on a base image",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.liveArtifacts(c.Context(), url.Values{"base": {base}, "image": {image}, "service": {service}})
		},
	}
	cmd.Flags().StringVar(&base, "base", "", "digest of the base image")
	cmd.Flags().StringVar(&image, "image", "", "digest of the image")
	cmd.Flags().StringVar(&service, "service", "", "only this service")
	cmd.MarkFlagsMutuallyExclusive("base", "image")
	return cmd
}

func (a *app) liveArtifacts(ctx context.Context, q url.Values) error {
	for name, v := range q {
		if v[0] == "" {
			q.Del(name)
		}
	}
	var answer api.Artifacts
	if err := a.get(ctx, "/v1/live/artifacts", q, &answer); err != nil {
		return err
	}
	fmt.Fprintln(a.err, "note: the rows are the server's word, of what instances report of themselves: nothing proves them")
	return a.print(answer, func(w io.Writer) {
		header, row := "TARGET COUNT VERSION REVISION ARTIFACT IMAGE BASE", imageRow
		if q.Has("dependency") {
			header, row = "TARGET COUNT VERSION REVISION BASE DEPENDENCY", dependencyRow
		}
		var rows [][]string
		for _, f := range answer.Found {
			rows = append(rows, row(f))
		}
		fitted(w, header, rows)
		if len(rows) == 0 {
			fmt.Fprintln(a.err, nothingReported(q))
		}
		if answer.Omitted > 0 {
			fmt.Fprintf(w, "and %d more: name a service with --service\n", answer.Omitted)
		}
		if answer.Unknown > 0 {
			fmt.Fprintf(w, "unknown: %d instances report nothing about it\n", answer.Unknown)
		}
	})
}

// nothingReported says what exactly no instance reports: other versions may be.
func nothingReported(q url.Values) string {
	name, below := q.Get("dependency"), q.Get("below")
	switch {
	case below != "":
		return fmt.Sprintf("no instance reports %s below %s; without --below all versions are listed", name, below)
	case name != "":
		return fmt.Sprintf("no instance reports %s", name)
	}
	return "no instance reports it"
}

func imageRow(f api.Artifact) []string {
	return append(programCells(f), hex12(api.Digest(f.Digest)), hex12(api.Digest(f.Image)), hex12(api.Digest(f.BaseImage)))
}

func dependencyRow(f api.Artifact) []string {
	dependency := f.Dependency
	if f.Unordered {
		dependency += " (its version can't be compared)"
	}
	return append(programCells(f), hex12(api.Digest(f.BaseImage)), dependency)
}

func programCells(f api.Artifact) []string {
	return []string{f.Target.String(), strconv.Itoa(f.Instances), dash(f.Version), dash(short(f.Revision))}
}
