package gitlab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// ErrNoArtifact says that no pipeline of the commit has left the file, or that it has expired.
var ErrNoArtifact = errors.New("no merge request's pipeline of this commit has left it, or it has expired")

// Artifact returns a file that a job left, in the newest merge request's pipeline that ran for this very commit and in which the job
// succeeded. With fast-forward merges a commit is on main what it was in its merge request. The job's name is the full one.
func (c Client) Artifact(ctx context.Context, commit, job, file string) ([]byte, error) {
	type thing struct {
		ID     int64  `json:"id"`
		SHA    string `json:"sha"`
		Name   string `json:"name"`
		Status string `json:"status"`
	}
	var pipelines []thing
	query := url.Values{"sha": {commit}, "source": {"merge_request_event"}, "order_by": {"id"}, "sort": {"desc"}}
	err := pages(ctx, c, c.path("pipelines"), query, func(list []thing) bool { pipelines = append(pipelines, list...); return true })
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", file, err)
	}
	for _, p := range pipelines {
		if p.SHA != commit {
			continue
		}
		var found int64
		at := c.path("pipelines", strconv.FormatInt(p.ID, 10), "jobs")
		if err := pages(ctx, c, at, url.Values{"scope[]": {"success"}}, func(list []thing) bool {
			for _, j := range list {
				if j.Name == job && j.Status == "success" && j.ID > found {
					found = j.ID
				}
			}
			return true
		}); err != nil {
			return nil, fmt.Errorf("look for %s: %w", file, err)
		}
		if found == 0 {
			continue
		}
		parts := append([]string{"jobs", strconv.FormatInt(found, 10), "artifacts"}, strings.Split(file, "/")...)
		body, _, err := c.do(ctx, http.MethodGet, c.path(parts...), nil)
		var refused *Error
		switch {
		case err == nil:
			return body, nil
		case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		default:
			return nil, fmt.Errorf("fetch %s: %w", file, err)
		}
	}
	return nil, fmt.Errorf("look for %s: %w", file, ErrNoArtifact)
}
