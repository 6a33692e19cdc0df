package kuma

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
	"strings"
	"sync"
	"time"
)

// A socket speaks socket.io 5 over engine.io 4 by long polling (socket.io/docs/v4/engine-io-protocol), which is all that Kuma's
// few questions need: text packets, one namespace, acknowledgements.
type socket struct {
	base   string
	client *http.Client
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	next   int
	acks   map[int]chan []json.RawMessage
	events map[string]json.RawMessage // the last of each name
	news   chan struct{}              // closed and replaced when an event came
	broken error
}

// Packets of engine.io that are used; 4 is a message.
const (
	engineOpen, engineClose, enginePing, enginePong, engineMessage = '0', '1', '2', '3', '4'
	separator                                                      = "\x1e"
)

func dial(ctx context.Context, base string) (*socket, error) {
	s := &socket{client: &http.Client{Timeout: 60 * time.Second}, done: make(chan struct{}), acks: map[int]chan []json.RawMessage{},
		events: map[string]json.RawMessage{}, news: make(chan struct{})}
	s.base = strings.TrimRight(base, "/") + "/socket.io/?EIO=4&transport=polling"
	body, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	var hello struct {
		SID string `json:"sid"`
	}
	if len(body) == 0 || body[0] != engineOpen || json.Unmarshal([]byte(body[1:]), &hello) != nil || hello.SID == "" {
		return nil, errors.New("talk to kuma: the answer is not socket.io's: is kuma.url right?")
	}
	s.base += "&sid=" + url.QueryEscape(hello.SID)
	if err := s.post(ctx, "40"); err != nil { // join the main namespace
		return nil, err
	}
	poll, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	go s.read(poll)
	return s, nil
}

func (s *socket) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.post(ctx, string(engineClose)) //nolint:errcheck // the server also notices silence
	s.cancel()
	<-s.done
}

func (s *socket) get(ctx context.Context) (string, error) { return s.do(ctx, http.MethodGet, "") }

func (s *socket) post(ctx context.Context, packet string) error {
	_, err := s.do(ctx, http.MethodPost, packet)
	return err
}

func (s *socket) do(ctx context.Context, method, packet string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base, strings.NewReader(packet))
	if err != nil {
		return "", errors.New("talk to kuma: its URL is not a URL: correct kuma.url")
	}
	req.Header.Set("Content-Type", "text/plain;charset=UTF-8")
	resp, err := s.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return "", fmt.Errorf("talk to kuma: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return "", fmt.Errorf("talk to kuma: %w", err)
	}
	return string(body), nil
}

// read polls until ctx ends or the connection breaks.
func (s *socket) read(ctx context.Context) {
	defer close(s.done)
	for {
		body, err := s.get(ctx)
		if err != nil {
			s.fail(err)
			return
		}
		for packet := range strings.SplitSeq(body, separator) {
			if packet == string(enginePing) {
				if err := s.post(ctx, string(enginePong)); err != nil {
					s.fail(err)
					return
				}
				continue
			}
			s.take(packet)
		}
	}
}

func (s *socket) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
	for _, c := range s.acks {
		close(c)
	}
	s.acks = map[int]chan []json.RawMessage{}
	close(s.news)
	s.news = make(chan struct{})
}

// take understands one packet: an event (42[...]) or an acknowledgement (43ID[...]). Others are of no interest.
func (s *socket) take(packet string) {
	kind, id, args := parsePacket(packet)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch kind {
	case '2':
		var name string
		if len(args) > 0 && json.Unmarshal(args[0], &name) == nil {
			var first json.RawMessage
			if len(args) > 1 {
				first = args[1]
			}
			s.events[name] = first
			close(s.news)
			s.news = make(chan struct{})
		}
	case '3':
		if c, ok := s.acks[id]; ok {
			delete(s.acks, id)
			c <- args
			close(c)
		}
	}
}

// parsePacket reads a socket.io packet within an engine.io message: kind 0 where it is none.
func parsePacket(packet string) (kind byte, id int, args []json.RawMessage) {
	if len(packet) < 2 || packet[0] != engineMessage {
		return 0, 0, nil
	}
	kind, rest := packet[1], packet[2:]
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	if digits > 0 {
		var err error
		if id, err = strconv.Atoi(rest[:digits]); err != nil {
			return 0, 0, nil
		}
	}
	if json.Unmarshal([]byte(rest[digits:]), &args) != nil {
		return 0, 0, nil
	}
	return kind, id, args
}

// call emits an event and waits for its acknowledgement, which Kuma fills with {ok, msg, ...}.
func (s *socket) call(ctx context.Context, event string, args ...any) (json.RawMessage, error) {
	text, err := json.Marshal(append([]any{event}, args...))
	if err != nil {
		return nil, err
	}
	answer := make(chan []json.RawMessage, 1)
	s.mu.Lock()
	if s.broken != nil {
		s.mu.Unlock()
		return nil, s.broken
	}
	id := s.next
	s.next++
	s.acks[id] = answer
	s.mu.Unlock()
	if err := s.post(ctx, "42"+strconv.Itoa(id)+string(text)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	select {
	case got, ok := <-answer:
		if !ok || len(got) == 0 {
			return nil, fmt.Errorf("ask kuma to %s: the connection broke", event)
		}
		var told struct {
			OK  *bool  `json:"ok"`
			Msg string `json:"msg"`
		}
		if bytes.HasPrefix(got[0], []byte("{")) && json.Unmarshal(got[0], &told) == nil && told.OK != nil && !*told.OK {
			return nil, fmt.Errorf("ask kuma to %s: %s", event, told.Msg)
		}
		return got[0], nil
	case <-ctx.Done():
		return nil, fmt.Errorf("ask kuma to %s: no answer in time", event)
	}
}

// event waits for the newest event of a name.
func (s *socket) event(ctx context.Context, name string) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		s.mu.Lock()
		text, ok, news, broken := s.events[name], s.events[name] != nil, s.news, s.broken
		s.mu.Unlock()
		if ok {
			return text, nil
		}
		if broken != nil {
			return nil, broken
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for kuma's %s: nothing came", name)
		}
	}
}
