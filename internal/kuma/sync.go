package kuma

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Monitor that is pushed to.
type Monitor struct {
	Name     string
	Token    string
	Interval time.Duration // silence for longer than this is an alarm
}

const (
	// Often is for what is pushed every five minutes: three may be missed.
	Often = 15 * time.Minute
	// Rare is for what is pushed once a run: the longest that Kuma takes is not long enough for a week, so only an explicit "down"
	// of such a monitor means something.
	Rare = 20 * 24 * time.Hour
)

// mark is the description by which our monitors are known again.
const mark = "made by homelab kuma sync"

// Synced says what Sync did.
type Synced struct {
	Made      []string `json:"made"`
	Corrected []string `json:"corrected"`
	Paused    []string `json:"paused"`
	Same      int      `json:"same"`
}

// Sync makes the monitors and corrects those that differ, with all of Kuma's default notifications on new ones. Ours that are
// not wanted any more are paused; others are left alone.
func Sync(ctx context.Context, url, user, password string, want []Monitor) (Synced, error) {
	var done Synced
	s, err := dial(ctx, url)
	if err != nil {
		return done, err
	}
	defer s.close()
	if _, err := s.call(ctx, "login", map[string]string{"username": user, "password": password, "token": ""}); err != nil {
		return done, fmt.Errorf("%w: correct kuma.user and kuma.password", err)
	}
	text, err := s.event(ctx, "monitorList")
	if err != nil {
		return done, err
	}
	there := map[string]map[string]any{}
	if err := json.Unmarshal(text, &there); err != nil {
		return done, fmt.Errorf("read kuma's monitors: %w", err)
	}
	notify, err := defaults(ctx, s)
	if err != nil {
		return done, err
	}
	byName := map[string]map[string]any{}
	for _, m := range there {
		if m["description"] == mark && m["type"] == "push" {
			byName[fmt.Sprint(m["name"])] = m
		}
	}
	for _, w := range want {
		m, ok := byName[w.Name]
		delete(byName, w.Name)
		switch {
		case !ok:
			err = w.add(ctx, s, notify)
			done.Made = append(done.Made, w.Name)
		case w.correct(m):
			_, err = s.call(ctx, "editMonitor", m)
			if err == nil && m["active"] == false {
				_, err = s.call(ctx, "resumeMonitor", m["id"])
			}
			done.Corrected = append(done.Corrected, w.Name)
		default:
			done.Same++
		}
		if err != nil {
			return done, fmt.Errorf("monitor %q: %w", w.Name, err)
		}
	}
	for name, m := range byName {
		if m["active"] == false {
			continue
		}
		if _, err := s.call(ctx, "pauseMonitor", m["id"]); err != nil {
			return done, fmt.Errorf("monitor %q: %w", name, err)
		}
		done.Paused = append(done.Paused, name)
	}
	slices.Sort(done.Paused)
	return done, nil
}

// defaults are the notifications that Kuma's own page would put on a new monitor.
func defaults(ctx context.Context, s *socket) (map[string]bool, error) {
	text, err := s.event(ctx, "notificationList")
	if err != nil {
		return nil, err
	}
	var list []struct {
		ID      int  `json:"id"`
		Default bool `json:"isDefault"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read kuma's notifications: %w", err)
	}
	on := map[string]bool{}
	for _, n := range list {
		if n.Default {
			on[fmt.Sprint(n.ID)] = true
		}
	}
	return on, nil
}

// add makes a monitor. Retries are 0: with any, a "down" becomes "pending" and tells nobody (server/routers/api-router.js,
// determineStatus).
func (w Monitor) add(ctx context.Context, s *socket, notify map[string]bool) error {
	m := map[string]any{
		"type": "push", "name": w.Name, "description": mark, "pushToken": w.Token, "interval": int(w.Interval.Seconds()),
		"retryInterval": 60, "resendInterval": 0, "maxretries": 0, "timeout": 48, "upsideDown": false, "ignoreTls": false,
		"expiryNotification": false, "maxredirects": 10, "method": "GET", "accepted_statuscodes": []string{"200-299"},
		"notificationIDList": notify, "kafkaProducerBrokers": []string{}, "kafkaProducerSaslOptions": map[string]string{"mechanism": "None"},
		"conditions": []string{}, "rabbitmqNodes": []string{},
	}
	_, err := s.call(ctx, "add", m)
	if err != nil && (strings.Contains(err.Error(), "conditions") || strings.Contains(err.Error(), "rabbitmq")) { // before 2.0.0-beta.1
		delete(m, "conditions")
		delete(m, "rabbitmqNodes")
		_, err = s.call(ctx, "add", m)
	}
	return err
}

// correct changes what differs and says whether anything did.
func (w Monitor) correct(m map[string]any) bool {
	changed := false
	set := func(key string, want any) {
		if m[key] != want {
			m[key], changed = want, true
		}
	}
	set("pushToken", w.Token)
	set("interval", w.Interval.Seconds()) // JSON has no whole numbers
	set("maxretries", 0.0)
	set("upsideDown", false)
	return changed || m["active"] == false
}
