package chat

import (
	"context"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/db"
)

// there says which of messages there are.
func there(ctx context.Context, q db.Querier, messages []int64) (map[int64]bool, error) {
	all := map[int64]bool{}
	for batch := range slices.Chunk(messages, 500) {
		args := make([]any, len(batch))
		for i, id := range batch {
			args[i] = id
		}
		found, err := db.All(ctx, q, "read conversations", db.Column[int64],
			`SELECT id FROM messages WHERE id IN (`+strings.TrimSuffix(strings.Repeat("?,", len(batch)), ",")+`)`, args...)
		if err != nil {
			return nil, err
		}
		for _, id := range found {
			all[id] = true
		}
	}
	return all, nil
}
