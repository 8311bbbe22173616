// The aim line of the case "hello": Go's net/http on one core, answering the same 13 bytes.
// Usage: aim PORT
package main

import (
	"log"
	"net/http"
	"os"
	"runtime"
)

func main() {
	runtime.GOMAXPROCS(1)
	greeting := []byte("Hello, world!")
	handler := func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header["Content-Type"] = []string{"text/plain"}
		header["Content-Length"] = []string{"13"}
		w.Write(greeting)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(handler)))
}
