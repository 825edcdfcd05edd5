// Package flags evaluates feature flags with flagd's semantics.
package flags
