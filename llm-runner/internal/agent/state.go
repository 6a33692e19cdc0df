package agent

import (
	"crypto/rand"
	"time"
)

// A State says where a run stands.
type State string

const (
	Planned    State = "planned"    // it waits for the agent's run before it
	Queued     State = "queued"     // the engine calls it
	Running    State = "running"    //
	Waiting    State = "waiting"    // for a time, a machine, a person, or jobs
	Delivering State = "delivering" // its work is done; some place has not taken it yet
	Done       State = "done"
	Failed     State = "failed"
	Cancelled  State = "cancelled" // a person did not want it any more, or it never began: see Service.drop
)

// Ended says that nothing more happens.
func (s State) Ended() bool { return s == Done || s == Failed || s == Cancelled }

// A Cause says why a run was made.
type Cause string

const (
	BySchedule Cause = "schedule"
	ByPerson   Cause = "person"
	Dry        Cause = "dry"   // a person wants to see what it would say
	ByAgent    Cause = "agent" // another one called it
)

// A Run is one time that an agent works.
type Run struct {
	ID      int64     `json:"id"`
	Agent   string    `json:"agent"`
	Cause   Cause     `json:"cause"`
	Due     time.Time `json:"due"`
	Covers  int       `json:"covers"` // due times that it is for
	Parent  int64     `json:"parent,omitempty"`
	Depth   int       `json:"depth,omitempty"`
	Task    string    `json:"task,omitempty"`
	State   State     `json:"state"`
	NextAt  time.Time `json:"next_at,omitzero"`
	Waits   string    `json:"waits_for,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Output  Output    `json:"output,omitzero"`
	Over    string    `json:"over,omitempty"` // which bound of the budget ended it
	By      string    `json:"provider,omitempty"`
	Model   string    `json:"model,omitempty"`
	Spent             // of models
	Work    int64     `json:"work_ms"`
	Created time.Time `json:"created"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`

	key      string
	call     int
	worker   string
	attempts int
}

// Output is what a run says.
type Output struct {
	Title string `json:"title,omitempty"`
	Text  string `json:"text,omitempty"` // Markdown, for the person alone
	// Outside is what may leave this machine; "": Text.
	Outside string   `json:"outside,omitempty"`
	Notes   []Note   `json:"notes,omitempty"` // for the vault; none: Text is one
	Remarks []string `json:"remarks,omitempty"`
}

// A Note is one for the vault.
type Note struct {
	Name  string `json:"name"` // below the agent's folder, without .md
	Title string `json:"title"`
	Text  string `json:"text"`
}

// A Step is a piece of a run that is done once.
type Step struct {
	Name   string    `json:"name"`
	Note   string    `json:"note,omitempty"`
	Output string    `json:"output,omitempty"`
	Began  time.Time `json:"began"`
	Ended  time.Time `json:"ended,omitzero"`
}

// A Delivery is one note or one message of a run, at one place.
type Delivery struct {
	Run      int64     `json:"run"`
	Sink     string    `json:"sink"`
	Part     int       `json:"part"`
	Name     string    `json:"name,omitempty"`
	Text     string    `json:"text"`
	State    string    `json:"state"` // waiting, queued, sending, done, failed, skipped
	Attempts int       `json:"attempts"`
	NextAt   time.Time `json:"next_at,omitzero"`
	Place    string    `json:"place,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Made     time.Time `json:"made"`
	Ended    time.Time `json:"ended,omitzero"`

	call int
}

// Detail is all that is known of a run.
type Detail struct {
	Run
	Steps      []Step     `json:"steps"`
	Deliveries []Delivery `json:"deliveries"`
	Children   []Run      `json:"children"`
}

func unique() string { return rand.Text() }
