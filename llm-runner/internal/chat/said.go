package chat

import (
	"context"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Said is a message of the person, as others may read it.
type Said struct {
	Message
	// Private says that it stands after, or asks for, an answer that rests on notes which no cloud provider may see.
	Private bool
	// Open says that an answer to it is on the way, so that Private may not be the last word.
	Open bool
}

// Said returns what the person wrote in a conversation, on every branch, oldest first.
func (s *Service) Said(ctx context.Context, chat int64) ([]Said, error) {
	all, err := s.Tree(ctx, chat)
	if err != nil {
		return nil, err
	}
	private, open, parent := map[int64]bool{}, map[int64]bool{}, map[int64]int64{}
	for _, m := range all { // parents come before their replies
		parent[m.ID] = m.Parent
		private[m.ID] = private[m.Parent] || m.Turn != nil && m.Turn.Private
		if m.Turn != nil && private[m.ID] {
			private[m.Parent] = true
		}
		if m.Turn != nil && !m.Turn.Over() {
			open[m.Parent] = true
		}
	}
	var out []Said
	for _, m := range all {
		if m.Role == llm.User {
			out = append(out, Said{m, private[m.ID], open[m.ID]})
		}
	}
	return out, nil
}

// Before returns what the person wrote on the way to a message, oldest first.
func (s *Service) Before(ctx context.Context, message int64) ([]Said, error) {
	_, chat, err := oneMessage(ctx, s.messageAt(message).Read(), message)
	if err != nil {
		return nil, err
	}
	all, err := s.Said(ctx, chat)
	if err != nil {
		return nil, err
	}
	way, err := path(ctx, s.chatAt(chat).Read(), message)
	if err != nil {
		return nil, err
	}
	on := map[int64]bool{}
	for _, m := range way {
		on[m.ID] = true
	}
	var out []Said
	for _, m := range all {
		if on[m.ID] {
			out = append(out, m)
		}
	}
	return out, nil
}

// There says which of messages there still are.
func (s *Service) There(ctx context.Context, messages []int64) (map[int64]bool, error) {
	return there(ctx, s.db.Read(), messages)
}
