// Package kuma talks to Uptime Kuma: it pushes the state of things, and makes the monitors that are pushed to.
package kuma

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Token is the push token of a monitor: 32 letters and digits, made from one secret and the monitor's name, so that whoever
// pushes and whoever makes the monitor need no common list.
func Token(secret []byte, monitor string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(monitor))
	return strings.ToLower(base32.StdEncoding.EncodeToString(mac.Sum(nil))[:32])
}

// A Pusher pushes to one Uptime Kuma.
type Pusher struct {
	URL    string // http://127.0.0.1:3001
	Client *http.Client
	Tries  int           // 0: 3
	Wait   time.Duration // between tries; 0: 2 s
}

// maxMessage keeps the query, which Kuma stores as the beat's message, within what proxies pass on.
const maxMessage = 500

// Push tells a monitor that it is up or down, with a message and how long the work took. Anything but "up" is down to Kuma
// (server/routers/api-router.js). Tokens are secrets and are in no error.
func (p Pusher) Push(ctx context.Context, token string, up bool, message string, took time.Duration) error {
	status := "down"
	if up {
		status = "up"
	}
	query := url.Values{"status": {status}, "msg": {shorten(message)}, "ping": {strconv.FormatInt(took.Milliseconds(), 10)}}
	address := strings.TrimRight(p.URL, "/") + "/api/push/" + url.PathEscape(token) + "?" + query.Encode()
	tries, wait := max(p.Tries, 1), p.Wait
	if p.Tries == 0 {
		tries = 3
	}
	if wait == 0 {
		wait = 2 * time.Second
	}
	var err error
	for n := range tries {
		if n > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return err
			}
		}
		var final bool
		if final, err = p.push(ctx, address); err == nil || final {
			return err
		}
	}
	return err
}

func (p Pusher) push(ctx context.Context, address string) (final bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return true, errors.New("push to kuma: its URL is not a URL: correct kuma.url")
	}
	client := p.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which holds the token
		}
		return false, fmt.Errorf("push to kuma: %w", err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	var told struct {
		OK  bool   `json:"ok"`
		Msg string `json:"msg"`
	}
	switch err := json.Unmarshal(body, &told); {
	case err == nil && told.OK:
		return false, nil
	case resp.StatusCode == http.StatusNotFound:
		return true, fmt.Errorf("push to kuma: it knows no such monitor (%s): run homelab kuma sync", told.Msg)
	default:
		return false, fmt.Errorf("push to kuma: %s", resp.Status)
	}
}

func shorten(s string) string {
	if utf8.RuneCountInString(s) <= maxMessage {
		return s
	}
	return string([]rune(s)[:maxMessage-3]) + "..."
}
