// Package discord posts short messages to one Discord webhook, within the webhook's limits and out of everybody's way.
package discord

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"
)

// MaxContent is how many characters a message may have (discord.com/developers/docs/resources/webhook).
const MaxContent = 2000

// A Webhook posts messages in order. Post never blocks and never fails; Run does the work.
type Webhook struct {
	url    string // a secret: whoever has it can post
	client *http.Client
	queue  chan string
}

// waiting is how many messages are kept while Discord is away; later ones are dropped, since a person who comes back to a
// hundred alerts needs no more.
const waiting = 100

// New returns a Webhook for a webhook URL.
func New(url string) *Webhook {
	return &Webhook{url: url, client: &http.Client{Timeout: 15 * time.Second}, queue: make(chan string, waiting)}
}

// Post queues a message, and says whether there was room.
func (w *Webhook) Post(text string) bool {
	select {
	case w.queue <- text:
		return true
	default:
		return false
	}
}

// Run posts what is queued until ctx ends. A message that Discord cannot take now is tried again, for as long as it takes;
// one that it refuses for good is handed to lost.
func (w *Webhook) Run(ctx context.Context, lost func(error)) error {
	for {
		select {
		case text := <-w.queue:
			for wait := time.Second; ; wait = min(2*wait, time.Minute) {
				after, err := w.send(ctx, cut(text))
				if err == nil {
					break
				}
				var final permanent
				if errors.As(err, &final) {
					lost(err)
					break
				}
				t := time.NewTimer(max(after, wait))
				select {
				case <-t.C:
				case <-ctx.Done():
					t.Stop()
					return nil
				}
			}
		case <-ctx.Done():
			return nil
		}
	}
}

type permanent struct{ error }

// send posts one message. Where Discord names a time to wait it is returned with the error.
func (w *Webhook) send(ctx context.Context, text string) (time.Duration, error) {
	body, err := json.Marshal(map[string]any{"content": text, "allowed_mentions": map[string]any{"parse": []string{}}})
	if err != nil {
		return 0, permanent{err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return 0, permanent{errors.New("the webhook's URL is not a URL")}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL
		}
		return 0, fmt.Errorf("post to discord: %w", err)
	}
	defer resp.Body.Close()
	reply, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	switch {
	case resp.StatusCode < 300:
		return 0, nil
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		return retryAfter(resp.Header, reply), fmt.Errorf("post to discord: %s", resp.Status)
	}
	return 0, permanent{fmt.Errorf("post to discord: %s: copy the webhook's URL again from the channel's settings", resp.Status)}
}

// retryAfter reads the seconds to wait, from the body ("retry_after": 0.65) or the header.
func retryAfter(h http.Header, body []byte) time.Duration {
	var told struct {
		RetryAfter float64 `json:"retry_after"`
	}
	if json.Unmarshal(body, &told) != nil || told.RetryAfter <= 0 {
		told.RetryAfter, _ = strconv.ParseFloat(h.Get("Retry-After"), 64)
	}
	return time.Duration(told.RetryAfter * float64(time.Second))
}

// cut shortens a text to MaxContent characters.
func cut(text string) string {
	if utf8.RuneCountInString(text) <= MaxContent {
		return text
	}
	return string([]rune(text)[:MaxContent-3]) + "..."
}
