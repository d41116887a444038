//! Uploads, and files by their names.

use hyper::Method;
use serde_json::{Value, json};

use super::super::player::Player;
use super::{PIXELS, with};
use crate::graphs::png_of;

pub(super) async fn uploads(play: &mut Player) {
    play.scene("load image missing / upload");
    let load = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "nope.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "li"}},
    });
    play.post("/prompt", json!({"prompt": load, "client_id": "aaaa"})).await;
    let pixels = png_of(PIXELS);
    play.upload("nope.png", &pixels, &[]).await;
    play.upload("nope.png", &pixels, &[]).await;
    play.upload("nope.png", &pixels, &[("overwrite", "true")]).await;
    play.upload("nope.png", &pixels, &[("subfolder", "sub")]).await;
    let id = play.submit("loads", json!({"prompt": load, "client_id": "aaaa"})).await;
    play.hears_end("aaaa", &id).await;
    play.remaining(0).await;
    play.upload("nope.png", &png_of(1), &[]).await;
    let annotated = with(load, "/1/inputs/image", json!("sub/nope.png [input]"));
    let id = play.submit("loads annotated", json!({"prompt": annotated, "client_id": "bbbb"})).await;
    play.hears_end("bbbb", &id).await;
    play.remaining(0).await;
}

pub(super) async fn files(play: &mut Player) {
    play.scene("files by name");
    play.upload("side.png", &png_of(2), &[("type", "temp"), ("subfolder", "s/t")]).await;
    play.upload("again.tar.gz", b"one", &[]).await;
    play.upload("again.tar.gz", b"two", &[]).await;
    play.upload(".hidden", b"one", &[]).await;
    play.upload(".hidden", b"two", &[("overwrite", "no")]).await;
    play.upload("../out.png", b"x", &[]).await;
    play.upload("out.png", b"x", &[("subfolder", "../..")]).await;
    play.upload("out.png", b"x", &[("type", "models")]).await;
    play.upload("", b"x", &[]).await;
    play.ask(Method::POST, "/upload/image", &[], json!("no form")).await;
    for (name, original) in [
        ("mask.png", json!({"filename": "nope.png", "type": "input"})),
        ("mask.png", json!({"filename": "nope.png", "type": "input"})),
        ("annotated.png", json!({"filename": "nope.png [input]"})),
        ("result.png", json!({"filename": "li_00001_.png"})),
        ("nothing.png", json!({"filename": "not there.png", "type": "temp"})),
    ] {
        let fields = [("original_ref", original.to_string())];
        let fields = fields.each_ref().map(|(name, text)| (*name, text.as_str()));
        play.upload_to("/upload/mask", name, &png_of(3), &fields).await;
        play.get(&format!("/view?filename={name}&type=input&channel=rgb")).await;
    }
    play.upload_to("/upload/mask", "mask.png", &png_of(3), &[]).await;
    play.upload("text.txt", b"plain", &[]).await;
    play.upload("page.html", b"<p>", &[]).await;
    play.upload("picture.svg", b"<svg/>", &[]).await;
    for path in [
        "/view?filename=nope.png&type=input",
        "/view?filename=t_00001_.png",
        "/view?filename=t_00001_.png%20[output]&type=input&rand=0.1",
        "/view?filename=side.png&type=temp&subfolder=s/t",
        "/view?filename=s/t/side.png&type=temp",
        "/view?filename=text.txt&type=input",
        "/view?filename=page.html&type=input",
        "/view?filename=picture.svg&type=input",
        "/view?filename=nope.png&type=models",
        "/view?filename=nope.png&type=input&subfolder=../..",
        "/view?filename=nope.png&type=input&subfolder=sub",
    ] {
        play.get(path).await;
    }
    for path in ["/view?filename=nope.png&type=input", "/view?filename=t_00001_.png"] {
        for range in ["bytes=0-3", "bytes=5-", "bytes=-4", "bytes=999999-", "bytes=0-999999"] {
            play.ask(Method::GET, path, &[("Range", range)], Value::Null).await;
        }
        play.ask(Method::GET, path, &[("If-None-Match", "*")], Value::Null).await;
        play.ask(Method::GET, path, &[("If-Match", "\"other\"")], Value::Null).await;
        play.ask(Method::GET, path, &[("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")], Value::Null)
            .await;
        play.ask(Method::HEAD, path, &[], Value::Null).await;
        for how in
            ["preview=webp;80", "preview=jpeg", "preview=png;1", "channel=rgb", "channel=a", "channel=x"]
        {
            play.get(&format!("{path}&{how}")).await;
        }
    }

    play.scene("settings, user data and lists");
    play.post("/settings", json!({"A.b": 1, "C": [null]})).await;
    play.post("/settings/A.b", json!("two")).await;
    for path in ["/settings", "/settings/A.b", "/settings/none", "/userdata", "/userdata?dir=none"] {
        play.get(path).await;
    }
    play.ask(Method::POST, "/userdata/workflows%2Fa%20b.json", &[], json!({"x": 1})).await;
    play.ask(Method::POST, "/userdata/workflows%2Fa%20b.json?overwrite=false", &[], json!({})).await;
    for path in [
        "/userdata?dir=workflows",
        "/userdata?dir=workflows&recurse=true&split=true",
        "/userdata/workflows%2Fa%20b.json",
        "/userdata/none.json",
        "/userdata?dir=../..",
    ] {
        play.get(path).await;
    }
    play.ask(Method::POST, "/userdata/workflows%2Fa%20b.json/move/workflows%2Fc.json", &[], Value::Null)
        .await;
    play.ask(Method::DELETE, "/userdata/workflows%2Fc.json", &[], Value::Null).await;
    play.ask(Method::DELETE, "/userdata/workflows%2Fc.json", &[], Value::Null).await;
    for path in [
        "/models/checkpoints",
        "/models/loras",
        "/experiment/models/none",
        "/experiment/models/preview/checkpoints/0/none.safetensors",
        "/view_metadata/checkpoints?filename=none.safetensors",
        "/view_metadata/checkpoints",
        "/internal/files/none",
        "/api/embeddings",
        "/api/object_info/LoadImage",
        "/global_subgraphs/none",
        "/api/assets",
    ] {
        play.get(path).await;
    }
}
