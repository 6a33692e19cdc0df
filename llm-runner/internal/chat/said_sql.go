package chat

import (
	"context"
	"slices"

	"home.arpa/lab/llm-runner/internal/db"
)

// there says which of messages there are.
func there(ctx context.Context, q db.Querier, messages []int64) (map[int64]bool, error) {
	all := map[int64]bool{}
	for batch := range slices.Chunk(messages, 500) {
		marks, args := db.In(batch)
		found, err := db.All(ctx, q, "read conversations", db.Column[int64], `SELECT id FROM messages WHERE id IN (`+marks+`)`, args...)
		if err != nil {
			return nil, err
		}
		for _, id := range found {
			all[id] = true
		}
	}
	return all, nil
}
