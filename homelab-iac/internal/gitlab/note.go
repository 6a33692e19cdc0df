package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxNote is how long a note may be, in characters (Note's validation in GitLab's source, MAX_NOTE_LENGTH).
const MaxNote = 1_000_000

// A Note is one comment in a merge request.
type Note struct {
	ID     int64  `json:"id"`
	Body   string `json:"body"`
	System bool   `json:"system"` // GitLab wrote it itself
	Author struct {
		ID int64 `json:"id"`
	} `json:"author"`
}

// Marker is the line by which a note is found again. Browsers do not show it.
func Marker(name string) string {
	return "<!-- homelab-iac:" + strings.ReplaceAll(name, "--", "-") + " -->"
}

// Upsert writes a note of which there is one in each merge request: the newest one of the token's own that begins with the marker is
// written anew; where there is none it is made. Others' notes are left alone, whatever they hold.
func (c Client) Upsert(ctx context.Context, request int, marker, body string) (note Note, created bool, err error) {
	body = marker + "\n" + body
	if n := utf8.RuneCountInString(body); n > MaxNote {
		return note, false, fmt.Errorf("write the note: it has %d characters, and GitLab takes %d: shorten it", n, MaxNote)
	}
	var me struct {
		ID int64 `json:"id"`
	}
	if _, err := c.get(ctx, "/user", &me); err != nil {
		return note, false, fmt.Errorf("write the note: %w", err)
	}
	notes := c.path("merge_requests", strconv.Itoa(request), "notes")
	for try := 1; ; try++ {
		old, err := c.find(ctx, notes, me.ID, marker)
		if err != nil {
			return note, false, fmt.Errorf("write the note: %w", err)
		}
		verb, at := http.MethodPost, notes
		if old != 0 {
			verb, at = http.MethodPut, notes+"/"+strconv.FormatInt(old, 10)
		}
		text, _, err := c.do(ctx, verb, at, map[string]string{"body": body})
		var refused *Error
		again := err != nil && try < tries && ctx.Err() == nil
		switch {
		case err == nil:
			if err := json.Unmarshal(text, &note); err != nil {
				return note, false, fmt.Errorf("write the note: what answers is not GitLab: %w", err)
			}
			return note, old == 0, nil
		case again && errors.As(err, &refused) && (refused.Status == http.StatusNotFound && old != 0 || refused.Status >= 500):
			// It was deleted meanwhile, or it is not known whether it was made: look again.
		case again && !errors.As(err, &refused):
		default:
			return note, false, fmt.Errorf("write the note: %w", err)
		}
	}
}

// find returns the number of the newest note of ours with the marker, 0 where there is none.
func (c Client) find(ctx context.Context, notes string, me int64, marker string) (id int64, err error) {
	err = pages(ctx, c, notes, url.Values{"sort": {"desc"}, "order_by": {"created_at"}}, func(list []Note) bool {
		i := slices.IndexFunc(list, func(n Note) bool {
			return !n.System && n.Author.ID == me && strings.HasPrefix(strings.TrimSpace(n.Body), marker)
		})
		if i >= 0 {
			id = list[i].ID
		}
		return i < 0
	})
	return id, err
}
