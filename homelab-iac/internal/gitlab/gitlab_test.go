package gitlab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/fake"
)

const marker = "<!-- homelab-iac:plan:prod -->"

// project is a fake GitLab with merge request 7 and a client with a token of that role and scope.
func project(t *testing.T, token fake.Token) (*fake.GitLab, Client) {
	t.Helper()
	g := fake.NewGitLab(42, "example/homelab")
	g.OpenRequest(7)
	token.Value = "glpat-secret-of-the-test"
	if token.User == "" {
		token.User = "project_42_bot"
	}
	g.Add(token)
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return g, Client{URL: s.URL + "/api/v4", Project: "42", Token: token.Value, Pause: time.Millisecond}
}

var noteToken = fake.Token{Role: fake.Reporter, Scopes: []string{"api"}}

func upsert(t *testing.T, c Client, text string) (Note, bool) {
	t.Helper()
	n, created, err := c.Upsert(context.Background(), 7, marker, text)
	if err != nil {
		t.Fatal(err)
	}
	return n, created
}

func bodies(g *fake.GitLab) (all []string) {
	for _, n := range g.Notes(7) {
		all = append(all, n.Body)
	}
	return all
}

func TestThereIsOneNoteHoweverOftenItIsWritten(t *testing.T) {
	g, c := project(t, noteToken)
	g.Write(7, "somebody", marker+"\nnot ours")
	first, created := upsert(t, c, "one")
	if !created {
		t.Error("the first note was not made")
	}
	for i := range 130 { // more than a page of others
		g.Write(7, "somebody", fmt.Sprint("comment ", i))
	}
	second, created := upsert(t, c, "two")
	if created || second.ID != first.ID {
		t.Errorf("made %v, number %d, want %d", created, second.ID, first.ID)
	}
	got := strings.Join(bodies(g), "|")
	if !strings.Contains(got, marker+"\ntwo") || strings.Contains(got, "\none") || !strings.Contains(got, "not ours") || strings.Count(got, marker) != 2 {
		t.Errorf("%.200s", got)
	}
}

func TestANoteWhoseAnswerWasLostIsNotMadeTwice(t *testing.T) {
	for _, after := range []bool{true, false} {
		g, c := project(t, noteToken)
		g.Break("POST", "/notes", http.StatusBadGateway, after)
		upsert(t, c, "once")
		if n := strings.Count(strings.Join(bodies(g), "|"), marker); n != 1 {
			t.Errorf("after=%v: %d notes", after, n)
		}
	}
}

func TestANoteThatWasDeletedMeanwhileIsMadeAgain(t *testing.T) {
	g, c := project(t, noteToken)
	upsert(t, c, "one")
	g.Break("PUT", "/notes/", http.StatusNotFound, false)
	upsert(t, c, "two")
	if got := strings.Join(bodies(g), "|"); !strings.Contains(got, "two") {
		t.Error(got)
	}
}

func TestRefusalsNameTheCureAndNoSecret(t *testing.T) {
	for name, c := range map[string]struct {
		token fake.Token
		want  string
	}{
		"a guest":            {fake.Token{Role: fake.Guest, Scopes: []string{"api"}}, "403"},
		"a scope that reads": {fake.Token{Role: fake.Maintainer, Scopes: []string{"read_api"}}, "403"},
		"no member":          {fake.Token{Scopes: []string{"api"}}, "404"},
		"a job's own token":  {fake.Token{Role: fake.Maintainer, Job: true}, "401"},
		"a token that ended": {fake.Token{Role: fake.Reporter, Scopes: []string{"api"}, Ended: true}, "new project access token"},
	} {
		_, client := project(t, c.token)
		_, _, err := client.Upsert(context.Background(), 7, marker, "x")
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), client.Token) {
			t.Errorf("%s: %v", name, err)
		}
	}
	g, client := project(t, noteToken)
	g.MaxNote = 10
	if _, _, err := client.Upsert(context.Background(), 7, marker, "x"); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Error(err)
	}
	if _, _, err := client.Upsert(context.Background(), 7, marker, strings.Repeat("x", MaxNote)); err == nil || !strings.Contains(err.Error(), "shorten") {
		t.Error(err)
	}
	if _, _, err := client.Upsert(context.Background(), 8, marker, "x"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}

func TestTheArtifactIsOfTheCommitsOwnNewestSuccess(t *testing.T) {
	g, c := project(t, fake.Token{Role: fake.Developer, Scopes: []string{"read_api"}})
	leave := func(source, sha string, ok bool, text string) {
		p, _, _ := g.Start(source, "change", sha, 7, fake.Token{User: "contributor", Role: fake.Developer})
		g.Leave(p, "terraform:plan", ok, map[string][]byte{"plan/plan.sealed": []byte(text)})
		g.Leave(p, "other", true, map[string][]byte{"plan/plan.sealed": []byte("of another job")})
	}
	leave("merge_request_event", "aaa", true, "older")
	leave("merge_request_event", "aaa", true, "right")
	leave("merge_request_event", "aaa", false, "failed")
	leave("merge_request_event", "bbb", true, "of another commit")
	leave("push", "aaa", true, "of a branch")
	got, err := c.Artifact(context.Background(), "aaa", "terraform:plan", "plan/plan.sealed")
	if err != nil || string(got) != "right" {
		t.Errorf("%s %v", got, err)
	}
	if _, err := c.Artifact(context.Background(), "ccc", "terraform:plan", "plan/plan.sealed"); !errors.Is(err, ErrNoArtifact) {
		t.Error(err)
	}
	g.Expire()
	if _, err := c.Artifact(context.Background(), "aaa", "terraform:plan", "plan/plan.sealed"); !errors.Is(err, ErrNoArtifact) {
		t.Error(err)
	}
	_, reporter := project(t, noteToken)
	if _, err := reporter.Artifact(context.Background(), "aaa", "x", "y"); !errors.Is(err, ErrNoArtifact) {
		t.Error("a reporter may list pipelines:", err)
	}
}

func TestRequestsAreSentAgainWhenGitLabIsBusy(t *testing.T) {
	g, c := project(t, noteToken)
	for range 2 {
		g.Break("GET", "/user", http.StatusServiceUnavailable, false)
	}
	upsert(t, c, "x")
	for range 3 {
		g.Break("GET", "/user", http.StatusServiceUnavailable, false)
	}
	if _, _, err := c.Upsert(context.Background(), 7, marker, "x"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
}
