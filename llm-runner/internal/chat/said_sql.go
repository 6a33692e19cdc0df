package chat

import (
	"context"
	"slices"
	"strings"
)

// there says which of messages there are.
func there(ctx context.Context, q querier, messages []int64) (map[int64]bool, error) {
	all := map[int64]bool{}
	for batch := range slices.Chunk(messages, 500) {
		args := make([]any, len(batch))
		for i, id := range batch {
			args[i] = id
		}
		found, err := collect(q, func(row interface{ Scan(...any) error }) (id int64, err error) { return id, row.Scan(&id) }, ctx,
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
