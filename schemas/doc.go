// Package schemas holds the contracts between the stages: the records that
// travel through Kafka, the ids that name things in them, and the limits that
// every stage keeps.
//
// In and out: Kafka records, as key, value and headers. Decoders never panic
// and never trust a length; encoders write version 1 of each format and
// decoders read every version, ignoring headers and fields they do not know,
// so that a rolling upgrade needs no migration. The JSON Schemas of the JSON
// records and of the CloudEvents attributes stand beside the Go types in
// json/, golden files of each wire format in testdata/.
//
// The package imports nothing else of Postrider, and blocks on nothing.
package schemas
