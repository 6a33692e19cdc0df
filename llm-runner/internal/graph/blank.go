package graph

import (
	"context"
	"database/sql"
)

// Blank removes words from all runs: somebody wants them forgotten.
func (s *Store) Blank(ctx context.Context, words ...string) error {
	return s.db.Tx(ctx, func(tx *sql.Tx) error {
		if err := s.db.Blank(ctx, tx, "graph_runs", []string{"title", "input", "question", "decision", "error"}, words...); err != nil {
			return err
		}
		if err := s.db.Blank(ctx, tx, "graph_steps", []string{"state", "note"}, words...); err != nil {
			return err
		}
		return s.db.Blank(ctx, tx, "graph_calls", []string{"asked", "answered"}, words...)
	})
}
