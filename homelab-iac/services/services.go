// Package services carries the folders of this directory, so that the homelab command knows them wherever it runs.
package services

import "embed"

// FS holds one folder per service.
//
//go:embed */*
var FS embed.FS
