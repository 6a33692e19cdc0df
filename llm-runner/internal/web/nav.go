package web

import (
	"html/template"
	"slices"
)

// A place is a page of the navigation.
type place struct {
	Nav, Href, Name string
	Icon            template.HTMLAttr // the d of its path, in a box of 20 by 20
	Here            bool              // it is the one that is shown
}

// barPlaces is how many places the bar of a phone shows; the others, and the rest, are behind its last button.
const barPlaces = 4

// places are the pages that this site has, the most used first.
func (s *Site) places() []place {
	var all []place
	add := func(there bool, nav, href, name, icon string) {
		if there {
			all = append(all, place{Nav: nav, Href: href, Name: name, Icon: template.HTMLAttr(`d="` + icon + `"`)}) //nolint:gosec // written below
		}
	}
	add(true, "chat", "/", "Chat", "M3.5 4.5h13v9h-7l-3.5 3v-3h-2.5z")
	add(s.Jobs != nil, "queue", "/jobs", "Queue", "M3.5 5.5h13M3.5 10h13M3.5 14.5h8")
	add(s.Library != nil, "library", "/library", "Library", "M4 4.5h4v12h-4zM8 4.5h4v12h-4zM12.5 5l3-.8 2.5 11.6-3 .7z")
	add(s.Agents != nil, "agents", "/agents", "Agents", "M10 3.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 1 0 0-13M10 6v4l2.8 1.8")
	add(s.Memory != nil, "memory", "/memory", "Memory", "M5.5 3.5h9v13l-4.5-3.5-4.5 3.5z")
	add(s.Progress != nil, "progress", "/progress", "Progress", "M3.5 5.5h7M6.5 10h7M10.5 14.5h6")
	add(s.Tools != nil, "tools", "/tools", "Tools", "M13.5 3.5a4 4 0 0 0-4.6 5.4L3.5 14.3l2.2 2.2 5.4-5.4a4 4 0 0 0 5.4-4.6l-2.6 2.6-2.8-.2-.2-2.8z")
	add(true, "usage", "/usage", "Usage", "M4 16.5v-5M10 16.5v-12M16 16.5v-8")
	add(true, "health", "/health", "Health", "M2.5 10.5h3.5l2.5-6 3.5 11 2.5-5h3")
	return all
}

// Bar are the places that a phone shows at once.
func (f frame) Bar() []place { return f.Places[:min(barPlaces, len(f.Places))] }

// Rest are the places that a phone shows behind a button.
func (f frame) Rest() []place { return f.Places[len(f.Bar()):] }

// Inside says that the page is one of the rest.
func (f frame) Inside() bool {
	return slices.ContainsFunc(f.Rest(), func(p place) bool { return p.Here })
}
