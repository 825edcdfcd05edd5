module github.com/sealstone/sealstone/integration/ofrep

go 1.26.0

require (
	github.com/open-feature/go-sdk v1.20.0
	github.com/open-feature/go-sdk-contrib/providers/ofrep v0.1.7
	github.com/sealstone/sealstone v0.0.0
)

require (
	go.uber.org/mock v0.6.0 // indirect
	golang.org/x/mod v0.42.0 // indirect
)

replace github.com/sealstone/sealstone => ../..
