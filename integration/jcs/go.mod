module github.com/sealstone/sealstone/integration/jcs

go 1.26.0

require github.com/sealstone/sealstone v0.0.0

require github.com/gowebpki/jcs v1.0.1

replace github.com/sealstone/sealstone => ../..
