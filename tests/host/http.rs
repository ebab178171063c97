//! HTTP triggers: as JSON, forwarded, and proxied; and the host's own pages.

use serde_json::{Value, json};

use super::{Bench, Running, by_hand};

fn function(route: &str, methods: Value) -> Value {
    let mut trigger =
        json!({"type": "httpTrigger", "name": "req", "route": route, "authLevel": "anonymous"});
    if !methods.is_null() {
        trigger["methods"] = methods;
    }
    json!({"bindings": [trigger, {"type": "http", "direction": "out", "name": "res"}]})
}

async fn start(bench: &Bench) -> (Running, String) {
    let running = bench.start_with(|options| options.port = Some(0)).await;
    let url = format!("http://{}", running.host.address().unwrap());
    (running, url)
}

fn chunked(text: &'static str) -> reqwest::Body {
    reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(text)]))
}

#[tokio::test]
async fn a_request_goes_as_json_and_its_answer_is_made_of_the_output() {
    let output = json!({"Outputs": {"res": {"statusCode": 202, "headers": {"Content-Type": "application/json"}, "body": "{\"ok\":true}"}}});
    let bench = Bench::new("score", function("score/{name}", json!(["post"])))
        .script(json!([{"body": output.to_string()}]));
    let (running, url) = start(&bench).await;
    let client = reqwest::Client::new();
    let response = client
        .post(format!("{url}/api/score/cpu?x=1"))
        .json(&json!({"n": 2}))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.text().await.unwrap(), "{\"ok\":true}");
    let request = &bench.requests()[0];
    assert_eq!(request["path"], "/score");
    let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["Data"]["req"]["Params"], json!({"name": "cpu"}));
    assert_eq!(body["Data"]["req"]["Body"], "{\"n\":2}");
    // Without a length the body is lost.
    client
        .post(format!("{url}/api/score/cpu"))
        .body(chunked("lost"))
        .send()
        .await
        .unwrap();
    let body: Value = serde_json::from_str(bench.requests()[1]["body"].as_str().unwrap()).unwrap();
    assert!(body["Data"]["req"].get("Body").is_none());
    running.stop().await;
}

#[tokio::test]
async fn what_no_route_takes_is_404() {
    let bench = Bench::new("score", function("score/{name}", json!(["post"])));
    let (running, url) = start(&bench).await;
    for path in [
        "/api/score/cpu",
        "/api/score",
        "/score/cpu",
        "/api/score/a/b",
        "/admin/nothing",
    ] {
        let response = reqwest::get(format!("{url}{path}")).await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.text().await.unwrap(), "", "{path}");
    }
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
    running.stop().await;
}

#[tokio::test]
async fn a_failed_invocation_is_500_without_a_body() {
    let bench = Bench::new("score", function("score", Value::Null))
        .script(json!([{"status": 503, "body": "{\"why\": 1}"}]));
    let (running, url) = start(&bench).await;
    let response = reqwest::get(format!("{url}/api/score")).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(response.text().await.unwrap(), "");
    running.stop().await;
}

#[tokio::test]
async fn a_forwarded_request_arrives_as_it_was_and_loses_a_chunked_body() {
    let bench = Bench::new("front", function("front/{*rest}", Value::Null))
        .host("customHandler__enableForwardingHttpRequest", true)
        .script(json!([{"status": 418, "type": "text/plain", "headers": {"location": "/x"}, "body": "short"}]));
    let (running, url) = start(&bench).await;
    let client = reqwest::Client::new();
    let asked = format!("{url}/api/front/a/b?x=1");
    let response = client
        .put(&asked)
        .header("x-mine", "1")
        .body("sent")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 418);
    assert_eq!(response.headers()["location"], "/x");
    assert_eq!(response.text().await.unwrap(), "short");
    let request = &bench.requests()[0];
    assert_eq!(request["method"], "PUT");
    assert_eq!(request["path"], "/api/front/a/b?x=1");
    assert_eq!(request["body"], "sent");
    assert_eq!(request["headers"]["x-mine"], "1");
    assert_eq!(
        format!("http://{}", request["headers"]["host"].as_str().unwrap()),
        url
    );
    assert!(request["headers"]["x-azure-functions-invocationid"].is_string());
    assert!(
        request["headers"]["user-agent"]
            .as_str()
            .unwrap()
            .contains("Azure-Functions-Host/")
    );
    client
        .put(&asked)
        .body(chunked("lost"))
        .send()
        .await
        .unwrap();
    assert_eq!(bench.requests()[1]["body"], "");
    running.stop().await;
}

#[tokio::test]
async fn a_proxied_request_streams_its_body() {
    let bench = Bench::new("front", function("{*rest}", Value::Null))
        .host("customHandler__enableForwardingHttpRequest", true)
        .host("customHandler__enableProxyingHttpRequest", true)
        .host("extensions__http__routePrefix", "");
    let (running, url) = start(&bench).await;
    let client = reqwest::Client::new();
    for body in [chunked("kept"), reqwest::Body::from("kept")] {
        let response = client
            .post(format!("{url}/front/a"))
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
    }
    let bodies: Vec<Value> = bench
        .requests()
        .iter()
        .map(|request| request["body"].clone())
        .collect();
    assert_eq!(bodies, ["kept", "kept"]);
    assert_eq!(bench.requests()[1]["headers"]["content-length"], "4");
    running.stop().await;
}

#[tokio::test]
async fn redirects_of_a_forwarded_request_are_the_clients() {
    let bench = Bench::new("front", function("front", Value::Null))
        .host("customHandler__enableForwardingHttpRequest", true)
        .script(json!([{"status": 302, "headers": {"location": "/elsewhere"}}]));
    let (running, url) = start(&bench).await;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let response = client.get(format!("{url}/api/front")).send().await.unwrap();
    assert_eq!(response.status(), 302);
    running.stop().await;
}

#[tokio::test]
async fn the_admin_pages_show_what_runs() {
    let bench = Bench::new("sweep", by_hand())
        .function("score", function("score/{name}", Value::Null))
        .function("broken", json!({"bindings": []}));
    let (mut running, url) = start(&bench).await;
    running.ready().await;
    let page = async |path: &str| -> Value {
        let text = reqwest::get(format!("{url}{path}"))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let functions = page("/admin/functions").await;
    let names: Vec<&str> = functions
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["score", "sweep"]);
    assert_eq!(functions[0]["invoke_url_template"], "/api/score/{name}");
    let status = page("/admin/host/status").await;
    assert_eq!(status["state"], "Running");
    assert!(
        status["errors"][0]
            .as_str()
            .unwrap()
            .starts_with("broken: ")
    );
    let client = reqwest::Client::new();
    let response = client
        .post(format!("{url}/admin/functions/sweep"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(running.invoked().await, None);
    let metrics = reqwest::get(format!("{url}/metrics"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("lapwing_host_invocations_total{function=\"sweep\"} 1"),
        "{metrics}"
    );
    running.stop().await;
}
