// Package store keeps the ledger on disk: leaves, tiles, folded state, index,
// details and objects, and the one function that changes them, [Store.Append].
//
//	err := store.Init(cfg)                  // once: "sealstone ledger init"
//	s, err := store.Open(cfg)
//	receipts, err := s.Append(ctx, func(st *ledger.State, now time.Time) (store.Decision, error) {
//		return store.Decision{Drafts: []store.Draft{store.DraftOf(signed, detail)}}, nil
//	})
//	snap := s.Snapshot()                    // what readers may see
//
// # Files
//
// A data directory holds three bbolt files, each with a format version first:
//
//	ledger.db    leaves, tiles, folded state, index, rows of the server
//	details.db   what can be erased; written before the leaf that names it
//	objects.db   content by digest; durable before the change that names it
//
// and, there or better on another disk, the anchor: the last published
// checkpoint. It is what a restored backup of the directory can't roll back.
// ledger.db must never roll back; details.db may lose rows only by erasure;
// objects.db can be built again from Git.
//
// # Order of a write
//
// details → leaves, tiles, fold, index and rows in one transaction → signed
// checkpoint → published snapshot → anchor → answer. A checkpoint is signed only
// when its commit is known; nothing is served at or beyond the published size.
// A crash between any two steps is healed by what every start does anyway.
package store
