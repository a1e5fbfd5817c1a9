// Package archtest holds the rules of the house over the whole module: who may
// import whom, and what the code may look like.
//
// It is tests only. They parse every Go file of the module, so they need no
// build and no network; each rule is itself tested on a source that breaks it.
package archtest
