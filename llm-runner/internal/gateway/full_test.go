package gateway

import (
	"fmt"
	"net/http"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
)

func TestAJobThatTheDiskDoesNotTakeIsRefusedWithTheReason(t *testing.T) {
	for text, want := range map[string]int{"database or disk is full (13)": http.StatusInsufficientStorage,
		"attempt to write a readonly database (8)": http.StatusServiceUnavailable, "something else": http.StatusServiceUnavailable} {
		err := fmt.Errorf("commit: %s", text)
		p := notTaken(err)
		if p.status != want || p.retryAfter == 0 || db.FaultOf(err) != "" && p.Message != db.FaultOf(err).Refusal() {
			t.Errorf("%s: %d %s", text, p.status, p.Message)
		}
	}
}
