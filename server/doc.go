// Package server serves what the ledger says. One reconcile loop turns the Git
// source into bundles and changes; one append path takes signed statements; and
// everything that is read (heads, evidence, OCI content, flag evaluations, the
// log itself) comes from one published snapshot, so that readers hold no lock
// and a failing source, disk or peer never stops them.
package server
