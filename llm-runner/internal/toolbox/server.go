package toolbox

import "time"

// A Server is an MCP server that offers tools, as people see it.
type Server struct {
	Name         string     `json:"name"`
	Address      string     `json:"address"` // its URL, or the program that is started
	State        string     `json:"state"`   // up, down, connecting, or login: a person has to log in
	Since        time.Time  `json:"since"`
	Says         string     `json:"says,omitempty"`  // what is wrong
	Login        string     `json:"login,omitempty"` // where a person logs in
	Product      string     `json:"product,omitempty"`
	Protocol     string     `json:"protocol,omitempty"`
	Capabilities []string   `json:"capabilities,omitempty"`
	Tools        []string   `json:"tools,omitempty"`
	Handshake    []Exchange `json:"handshake,omitempty"`
}

// An Exchange is one message of a handshake.
type Exchange struct {
	At   time.Time `json:"at"`
	Sent bool      `json:"sent"` // by us
	Text string    `json:"text"` // JSON, bounded
}
